"""Peak of a KTO step at full size without its memory: the real code on fake tensors, every storage counted.

The model is transformers', the adapters PEFT's, the 4-bit modules bitsandbytes', the head TRL's, and the step repeats
the calls of ``KTOTrainer._compute_loss``. What would run otherwise on a CPU than on a GPU is put as on a GPU: attention
by the memory-efficient kernel with a mask (a padded batch), 4-bit products by a weight in bfloat16 (bitsandbytes' way
above 1,536 rows), tiles of logits folded in place by Triton.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest import mock

import bitsandbytes as bnb
import peft
import torch
import trl.kernels.chunked_logprob as chunked
import trl.trainer.utils as trl_utils
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from plum_utils.training.memory import Setting
from plum_utils.training.policy import without_dropout
from plum_utils.training.speed import compute_adapters_in_model_dtype


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages alive, and their largest sum in each phase."""

    def __init__(self):
        super().__init__()
        self.now, self.phase, self.peaks, self._sizes = 0, "build", Counter(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        product = func is torch.ops.bitsandbytes.gemm_4bit.default
        result = self._product(*args, **(kwargs or {})) if product else func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._drop, storage._cdata)
            self.now += storage.nbytes()
            self.peaks[self.phase] = max(self.peaks[self.phase], self.now)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def _product(self, x, packed, shape, absmax, blocksize, kind, bias=None, absmax_8bit=None, absmax_code=None,
                 absmax_offset=None):
        """bitsandbytes.backends.cuda.ops._dequant_linear_fallback: scales twice in float32, the whole weight."""
        with self:
            scales = torch.empty_like(absmax_8bit, dtype=torch.float32)
            shifted = scales + absmax_offset
            result = torch.nn.functional.linear(x, torch.empty(shape, dtype=x.dtype), bias)
            del scales, shifted
            return result


def attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **_):
    """SDPA's CUDA path for a padded batch: heads repeated, the mask as numbers, the memory-efficient kernel."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    batch, heads, length, _ = query.shape
    bias = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(~attention_mask, -1e9)
    result = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias.expand(batch, heads, length, length), True, scale=scaling)[0]
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register("as_on_a_gpu", attention)
AttentionMaskInterface.register("as_on_a_gpu", sdpa_mask)


class _InPlace:
    """A Triton kernel that allocates nothing."""

    def __getitem__(self, grid):
        return lambda *_, **__: None


def _as_on_a_gpu() -> ExitStack:
    stack = ExitStack()
    for owner, name, value in [
            (chunked, "_use_triton", lambda device: True), (chunked, "_forward_kernel", _InPlace()),
            (chunked, "_backward_kernel", _InPlace()), (chunked, "_addmm_fp32", lambda *_: None),
            (trl_utils, "_use_triton", lambda device: False),  # all positions: fakes have no number of scored ones
            (torch.nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False:
                torch.native_dropout(x, p, training)[0] if p and training else x),
            (nn.Module, "to", lambda self, *_, **__: self)]:  # fakes cannot be swapped in place
        stack.enter_context(mock.patch.object(owner, name, value))
    return stack


def _quantise(model: Any) -> None:
    """4-bit modules in the place of all linear ones but the head, with what a quantised weight carries."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and name != "lm_head":
            scales = module.weight.numel() // 64
            outer = bnb.functional.QuantState(absmax=torch.empty(-(-scales // 256)), blocksize=256,
                                              code=torch.empty(256), dtype=torch.float32)
            state = bnb.functional.QuantState(
                absmax=torch.empty(scales, dtype=torch.uint8), shape=module.weight.shape, code=torch.empty(16),
                blocksize=64, quant_type="nf4", dtype=module.weight.dtype, offset=torch.zeros(()), state2=outer)
            linear = bnb.nn.Linear4bit.__new__(bnb.nn.Linear4bit)
            nn.Module.__init__(linear)
            linear.in_features, linear.out_features = module.in_features, module.out_features
            linear.weight = nn.Parameter(torch.empty(module.weight.numel() // 2, 1, dtype=torch.uint8), False)
            linear.weight.quant_state, linear.weight.compress_statistics, linear.weight.quant_type = state, True, "nf4"
            linear.bias, linear.quant_state, linear.compute_dtype = module.bias, state, torch.bfloat16
            linear.compute_type_is_set, linear.support_avx512bf16_for_cpu = True, False
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, linear)
    model.is_loaded_in_4bit = True


def _model(config: Any, setting: Setting) -> Any:
    """The policy as ``policy.load_policy`` and TRL's trainer make it."""
    training = setting.training
    config._attn_implementation = "eager" if training.attention == "eager" else "as_on_a_gpu"
    model = AutoModelForCausalLM.from_config(without_dropout(config), dtype=getattr(torch, setting.dtype))
    model.requires_grad_(False)
    if setting.nf4:
        _quantise(model)
    trl_utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits"))
    model = peft.get_peft_model(model, peft.LoraConfig(r=training.lora_r, target_modules="all-linear",
                                                       task_type="CAUSAL_LM"))
    compute_adapters_in_model_dtype(model)
    if training.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model.train()


def peak(config: Any, setting: Setting) -> tuple[int, dict[str, int]]:
    """Most bytes alive in the second step (the first makes the optimizer's state), and in each phase of it."""
    live = LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True), _as_on_a_gpu(), live:
        model = _model(config, setting)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gc.collect()  # what was replaced while building
        optimizer = torch.optim.AdamW(weights, fused=True)
        _step(model, optimizer, weights, setting, live)
        live.peaks.clear()
        _step(model, optimizer, weights, setting, live)
    return max(live.peaks.values()), dict(live.peaks)


def _step(model: Any, optimizer: Any, weights: list[Any], setting: Setting, live: LiveBytes) -> None:
    for _ in range(setting.training.accumulation):
        _micro_batch(model, setting, live)
    live.phase = "optimizer"
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _micro_batch(model: Any, setting: Setting, live: LiveBytes) -> None:
    ids, mask, mates, mates_mask, *_ = [torch.zeros(setting.sequences, setting.length, dtype=torch.int64)
                                        for _ in range(6)]

    def scores(ids, mask):
        return model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100),
                     fused_lm_head=True, use_cache=False)

    live.phase = "kl"
    with torch.no_grad():
        kl = scores(mates, mates_mask).log_probs.sum(-1)
    live.phase = "forward"
    outputs = scores(ids, mask)
    policy = outputs.log_probs.sum(-1)
    reference = reference_kl = torch.zeros(setting.sequences)
    if not setting.training.precompute_reference:
        live.phase = "reference"
        with torch.no_grad(), model.disable_adapter():
            reference_kl = scores(mates, mates_mask).log_probs.sum(-1)
            reference = scores(ids, mask).log_probs.sum(-1)
    loss = (1 - torch.sigmoid(0.1 * (policy - reference - (kl - reference_kl).mean()))).mean()
    live.phase = "backward"
    loss.backward()
