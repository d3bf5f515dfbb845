"""Peak memory of training on one device by formula.

Bytes are counted for one moment after another of a KTO step of TRL 1.16 with PEFT 0.21: its
``KTOTrainer._compute_loss`` runs the policy on the KL pairs, the policy, the reference on both, then backward. The
largest moment is the peak. What is alive at each was read off the code of transformers' Llama, Qwen2 and Starcoder2
layers, PEFT's LoRA layers (as ``plum_utils.training.speed`` changes them), bitsandbytes' 4-bit products and TRL's chunked
log-probabilities, and is held against traces of that code (tests/training/test_memory.py); DPO and SFT follow by the same
formulas, without a trace of their own. Assumed, not derived, are ``USABLE``, ``CUDA_CONTEXT`` and ``FRAGMENTATION``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from plum_utils.params import ParamsError

GIB = 2**30
CUDA_CONTEXT = 0.75 * GIB  # assumed: driver context, kernels, cuBLAS workspaces; 0.4 to 0.9 GiB are usual
FRAGMENTATION = 0.05  # assumed: what the caching allocator holds beyond the tensors, as a share of them
ARCHITECTURES = ("llama", "qwen2", "starcoder2")  # whose layers the formulas know
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768  # trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE, trl.trainer.utils' chunk
NF4_BLOCK, NF4_OUTER_BLOCK = 64, 256  # bitsandbytes: values to an 8-bit scale, scales to a 32-bit one
NF4_CODES = (16 + 256 + 1) * 4  # a layer's two code books and its offset
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "auto": 2}
BATCH_BYTES = 6 * 8 + 2 * 8 + 12 * 4  # a token of input: six tensors of ids and masks, two of labels, per-token results


@dataclass(frozen=True)
class Shape:
    """What of a decoder's config.json decides its memory."""

    hidden: int
    inner: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    gated: bool  # SwiGLU (Llama, Qwen2) or a plain GELU (Starcoder2)
    attention_bias: bool
    output_bias: bool
    tied: bool

    @property
    def linears(self) -> list[tuple[int, int, bool]]:
        """Inputs, outputs and whether there is a bias, of a layer's linear modules."""
        attention = [(self.hidden, width, self.attention_bias) for width in (self.queries, self.keys, self.keys)]
        attention.append((self.queries, self.hidden, self.output_bias))
        mlp = [(self.hidden, self.inner, self.output_bias)] * (2 if self.gated else 1)
        return [*attention, *mlp, (self.inner, self.hidden, self.output_bias)]

    @property
    def linear_weights(self) -> int:
        return self.layers * sum(inputs * outputs for inputs, outputs, _ in self.linears)

    @property
    def biases(self) -> int:
        return self.layers * sum(outputs for _, outputs, bias in self.linears if bias)

    @property
    def other_weights(self) -> int:
        """Embeddings, output head and norms, which 4-bit quantisation leaves as they are."""
        norms = (2 * self.layers + 1) * self.hidden * (1 if self.gated else 2)
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + norms

    @property
    def parameters(self) -> int:
        return self.linear_weights + self.biases + self.other_weights


def shape_of(config: Any) -> Shape:
    """Shape of a Llama, Qwen2 or Starcoder2 config.

    Raises:
        ParamsError: another architecture, whose layers keep other tensors.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ParamsError(f"the memory plan knows the layers of llama, qwen2 and starcoder2, not of {kind!r}; set "
                          "training.quantization and gradient_checkpointing yourself")
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    everywhere = bool(getattr(config, {"llama": "attention_bias", "starcoder2": "use_bias"}.get(kind, ""), False))
    return Shape(hidden=config.hidden_size, inner=config.intermediate_size, layers=config.num_hidden_layers,
                 heads=config.num_attention_heads, queries=config.num_attention_heads * head_size,
                 keys=config.num_key_value_heads * head_size, vocabulary=config.vocab_size,
                 gated=kind != "starcoder2", attention_bias=kind == "qwen2" or everywhere, output_bias=everywhere,
                 tied=config.tie_word_embeddings)


@dataclass(frozen=True)
class Setting:
    """One way to train: everything besides the model that decides the peak.

    ``sequences`` of ``length`` tokens go through the policy at a time, all padded to it and all tokens scored, which is
    the most that ``max_length`` allows. ``triton``: TRL folds a tile of logits in a kernel (a GPU) or in torch (a CPU).
    """

    sequences: int
    length: int
    accumulation: int = 1
    nf4: bool = False
    checkpointing: bool = False
    autocast: bool = False
    in_model_dtype: bool = True  # training.adapters_in_model_dtype
    attention: str = "sdpa"
    dtype: str = "bfloat16"
    lora_r: int | None = 16
    optimizer: str = "adamw_torch_fused"
    objective: str = "kto"
    precomputed: bool = False
    processes: int = 1
    triton: bool = True
    scored: int | None = None  # completion tokens of the batch; all where not known

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @property
    def scored_tokens(self) -> int:
        return self.sequences * (self.length - 1) if self.scored is None else self.scored


@dataclass(frozen=True)
class _Widths:
    """Bytes of an element by what it is: the residual stream and a linear module's output, a norm's input and output,
    matrix products, what an adapter's input is turned into, what its product takes, and its output."""

    stream: int
    norm_in: int
    norm_out: int
    product: int
    adapter: int
    lora_in: int
    lora_out: int

    @property
    def lora_cast(self) -> int:
        """PEFT's own copy of an input in the adapters' type, which lives as long as the layer's forward."""
        return self.adapter if self.adapter > self.norm_out else 0


def _widths(shape: Shape, setting: Setting) -> _Widths:
    wide = setting.nf4 and setting.autocast and not shape.gated  # 4-bit modules answer in their input's type
    stream = 4 if wide else DTYPE_BYTES[setting.dtype]
    norm = stream if shape.gated or not setting.autocast else 4  # autocast runs layer_norm in float32
    adapter = stream if setting.in_model_dtype else _stored_width(setting)
    narrow = 2 if setting.autocast else adapter
    return _Widths(stream=stream, norm_in=4 if shape.gated else norm, norm_out=norm,
                   product=2 if setting.autocast else stream, adapter=adapter, lora_in=narrow, lora_out=narrow)


def _stored_width(setting: Setting) -> int:
    """Bytes of a parameter in training. PEFT makes adapters float32; TRL makes those of a quantised model bfloat16,
    which ``adapters_in_model_dtype`` undoes."""
    if setting.lora_r is None:
        return DTYPE_BYTES[setting.dtype]
    return 2 if setting.nf4 and not setting.in_model_dtype else 4


# --- what stays: weights, adapters, gradients, optimizer --------------------------------------------------------------

def weight_bytes(shape: Shape, setting: Setting) -> int:
    """The policy's weights. NF4 with double quantisation takes 0.5 + 1/64 + 4/(64*256) bytes a value of the layers'
    linear modules, and leaves embeddings, head, norms and biases."""
    if not setting.nf4:
        return shape.parameters * DTYPE_BYTES[setting.dtype]
    scales = shape.linear_weights // NF4_BLOCK
    codes = shape.layers * len(shape.linears) * NF4_CODES
    return (shape.linear_weights // 2 + scales + scales // NF4_OUTER_BLOCK * 4 + codes
            + (shape.biases + shape.other_weights) * DTYPE_BYTES[setting.dtype])


def trainable(shape: Shape, setting: Setting) -> int:
    """Parameters in training: the adapters on every linear module of the layers, or all weights."""
    if setting.lora_r is None:
        return shape.parameters
    return shape.layers * sum(setting.lora_r * (inputs + outputs) for inputs, outputs, _ in shape.linears)


def adapter_bytes(shape: Shape, setting: Setting) -> int:
    """The adapters, and for ``sft+kto`` their frozen copy, which is the reference."""
    if setting.lora_r is None:
        return 0
    return trainable(shape, setting) * _stored_width(setting) * (2 if setting.objective == "sft+kto" else 1)


def reference_bytes(shape: Shape, setting: Setting) -> int:
    """A second model: only where all weights are trained and the reference's values are not there beforehand."""
    needed = setting.lora_r is None and not setting.precomputed and setting.objective != "sft"
    return weight_bytes(shape, setting) if needed else 0


def gradient_bytes(shape: Shape, setting: Setting) -> int:
    """All gradients, in the parameters' type; several processes hold them once more, in the buckets they exchange."""
    return trainable(shape, setting) * _stored_width(setting) * (2 if setting.processes > 1 else 1)


def optimizer_bytes(shape: Shape, setting: Setting) -> int:
    """Adam's two moments: torch keeps them in the parameters' type, bitsandbytes in float32, or in 8 bits with a
    float32 scale to 256 values. Paged ones count in full: they leave the card only when it is full."""
    count = trainable(shape, setting)
    if setting.optimizer == "adamw_torch_fused":
        return 2 * count * _stored_width(setting)
    return 8 * count if setting.optimizer == "paged_adamw_32bit" else 2 * count + 2 * count // 256 * 4


# --- what a token leaves behind ---------------------------------------------------------------------------------------

def saved_bytes(shape: Shape, setting: Setting) -> int:
    """Bytes that one layer keeps for the backward pass of one token, without checkpointing.

    The two norms' inputs; each linear module's input in the adapters' type (modules that share an input share the copy
    only where none has to be made); gate, up and their product's factor; queries, keys and values (repeated to as many
    heads where a mask forbids grouped heads), the attention's output and log-sums; the mask as numbers, or in eager
    attention each head's probabilities, in float32 and as the next product takes them.
    """
    width = _widths(shape, setting)
    norms = 2 * (width.norm_in * shape.hidden + (4 if shape.gated else 8))
    attention = width.product * 4 * shape.queries + 4 * shape.heads + width.product * setting.length
    if setting.attention == "eager":
        attention = width.product * 4 * shape.queries + (width.product + 4) * shape.heads * setting.length
    mlp = (3 if shape.gated else 1) * width.stream * shape.inner
    return norms + attention + mlp + _saved_by_linears(shape, setting, width)


def _saved_by_linears(shape: Shape, setting: Setting, width: _Widths) -> int:
    readers = 3 + (2 if shape.gated else 1)  # of the norms' outputs
    if setting.lora_r is None:
        normed = 2 * width.norm_out * shape.hidden if shape.gated else 0
        return 2 * width.product * shape.hidden + width.product * shape.inner + normed
    shared = width.norm_out == width.adapter and width.lora_in == width.norm_out
    inputs = (2 if shared else readers) * width.lora_in * shape.hidden
    as_it_is = width.product == width.lora_in and (setting.in_model_dtype or width.product == width.adapter)
    output = 0 if as_it_is else width.lora_in * shape.queries
    return inputs + output + width.lora_in * (shape.inner + setting.lora_r * len(shape.linears))


def _streams(shape: Shape, width: _Widths, saved: bool) -> int:
    """Embeddings, a layer's input and its middle, which the callers of the MLP hold; two of them are the saved inputs
    of the norms where those are not converted."""
    return width.stream * shape.hidden * (1 if saved and width.norm_in == width.stream else 3)


def _lora_sum(width: _Widths, setting: Setting) -> int:
    """Most bytes alive for each output of a linear module with adapters: its output (a 4-bit one is cloned), the
    adapters' product, that times the scale, and their sum."""
    both = max(width.stream + 2 * width.lora_out, width.stream + width.lora_out + max(width.stream, width.lora_out))
    return max(both, 2 * width.stream) if setting.nf4 else both


# --- what is alive at a moment ----------------------------------------------------------------------------------------

def _dequantised(shape: Shape, setting: Setting) -> int:
    """A layer's largest 4-bit weight in bfloat16, as a product with it needs, and its scales in float32, twice over."""
    largest = shape.hidden * shape.inner
    return 2 * largest + 8 * largest // NF4_BLOCK if setting.nf4 else 0


def _mlp_forward(shape: Shape, setting: Setting, adapters: bool) -> float:
    """Most bytes at work in the MLP of a forward pass that keeps nothing: where the last product with the inner width
    is made or where it is taken in."""
    width, buffer = _widths(shape, setting), _dequantised(shape, setting)
    held = _streams(shape, width, False) + width.norm_out * shape.hidden + setting.length
    inner, hidden = shape.inner, shape.hidden
    gate = width.stream * inner if shape.gated else 0
    taken = held + width.stream * (inner + hidden) + _converted(width.stream, width.product) * inner
    if not adapters or setting.lora_r is None:
        return max(setting.tokens * (held + gate + 2 * width.stream * inner), buffer + setting.tokens * taken)
    made = held + gate + _lora_sum(width, setting) * inner + width.lora_cast * hidden
    if width.adapter > width.stream:
        copies = width.adapter + _converted(width.adapter, width.lora_in)
        taken = held + width.stream * (inner + hidden) + copies * inner
    return max(setting.tokens * made, buffer + setting.tokens * taken)


def _layer_forward(shape: Shape, setting: Setting, adapters: bool = True) -> float:
    """Most bytes at work in a layer of a forward pass that keeps nothing: in its MLP, or in eager attention, whose
    scores are there in the products' type, in float32 and as probabilities."""
    mlp, width = _mlp_forward(shape, setting, adapters), _widths(shape, setting)
    if setting.attention != "eager":
        return mlp
    scores = shape.heads * setting.length * (width.product + 8)
    return max(mlp, setting.tokens * (_streams(shape, width, False) + 3 * width.product * shape.queries + scores))


def _converted(given: int, wanted: int) -> int:
    """Bytes of a copy in another type; none where it is that type already."""
    return 0 if given == wanted else wanted


def _output_forward(shape: Shape, setting: Setting) -> float:
    """At work at the end of a layer that keeps its tensors: its MLP's output module adds up."""
    width = _widths(shape, setting)
    hidden = _streams(shape, width, True) + (width.norm_out + _lora_sum(width, setting)) * shape.hidden
    return setting.tokens * (hidden + _output_input(shape, setting, width) + setting.length)


def _output_input(shape: Shape, setting: Setting, width: _Widths) -> int:
    """The MLP's product and PEFT's copy of it, as far as they are not what is kept for backward."""
    if setting.lora_r is None:
        return 0
    wide = width.adapter if width.adapter > width.stream and width.lora_in != width.adapter else 0
    return (wide + (0 if width.stream == width.lora_in == width.adapter else width.stream)) * shape.inner


def _recomputed(shape: Shape, setting: Setting) -> float:
    """At work when a checkpointed layer is run again, beside all that it keeps in the end: at the MLP's last product
    with the inner width, when that one's output and the next module's input are not there yet, or at the very end."""
    width = _widths(shape, setting)
    middle = 0 if width.norm_in == width.stream else width.stream
    hidden = (middle + width.norm_out + width.stream + width.lora_out) * shape.hidden
    made = (_lora_sum(width, setting) - width.stream - width.lora_in) * shape.inner
    taken = _output_input(shape, setting, width) + width.stream * shape.hidden
    return setting.tokens * (hidden + max(made, taken))


def _mlp_backward(shape: Shape, setting: Setting) -> float:
    """At work where the gradients of the MLP's product, of the frozen module and of its adapters, are added up; what
    the adapters had kept is gone by then. A 4-bit module has its weight in bfloat16 just before."""
    width = _widths(shape, setting)
    stream = width.stream * shape.hidden
    if setting.lora_r is None:
        return setting.tokens * (stream + 2 * width.stream * shape.inner)
    path = [width.lora_in, width.adapter, width.stream]
    chain = max(one + _converted(one, other) for one, other in pairwise(path))
    alone = setting.tokens * (stream + (max(chain, 3 * width.stream) - width.lora_in) * shape.inner)
    both = width.stream + width.product - width.lora_in
    return max(alone, _dequantised(shape, setting) + setting.tokens * (stream + both * shape.inner))


def _norm_backward(shape: Shape, setting: Setting) -> float:
    """At work in the last norm's backward: RMSNorm's steps in float32, or the fused kernel of LayerNorm."""
    width = _widths(shape, setting)
    return setting.tokens * shape.hidden * (20 - width.norm_out if shape.gated else width.norm_out)


def _head(shape: Shape, setting: Setting, backward: bool) -> float:
    """At work in TRL's chunked log-probabilities: a tile of logits, the weights' and states' chunks where they are of
    another type, float32 per-token results; backward the states' gradient in float32, then also in their type. In
    torch a tile has 12 bytes a logit more (its float32 form and two of its likes), backward 29 (five, two, a mask)."""
    width = _widths(shape, setting)
    rows, columns = min(setting.scored_tokens, TILE_TOKENS), min(shape.vocabulary, TILE_VOCABULARY)
    chunks = min(shape.vocabulary, 2 * TILE_VOCABULARY) if backward else columns  # backward holds the last one as well
    weights = DTYPE_BYTES[setting.dtype]
    work = width.product * rows * TILE_VOCABULARY + 36 * setting.scored_tokens
    work += _converted(weights, width.product) * chunks * shape.hidden
    work += _converted(width.norm_out, width.product) * rows * shape.hidden
    work += 0 if setting.triton else rows * columns * (29 if backward else 12)
    if not backward:
        return work + width.norm_out * shape.hidden * setting.tokens
    if setting.lora_r is None:
        work += (4 + _converted(4, weights)) * shape.vocabulary * shape.hidden
    return work + (4 + _converted(4, width.norm_out)) * shape.hidden * setting.scored_tokens


@dataclass(frozen=True)
class _Moment:
    """Bytes alive beside what stays: kept for backward, and at work."""

    name: str
    kept: float
    working: float
    gradients: float


def _moments(shape: Shape, setting: Setting) -> list[_Moment]:
    kept, one = _kept(shape, setting), _kept_of_one(shape, setting)
    width, lora = _widths(shape, setting), setting.lora_r is not None
    states = width.norm_out * shape.hidden * setting.scored_tokens  # what the head scores, once more as a copy
    angles = 2 * setting.tokens * width.stream * shape.queries // shape.heads
    end = kept + 4 * setting.tokens * shape.hidden + states + angles  # with the last norm's input
    grown = gradient_bytes(shape, setting)
    before = grown if setting.accumulation > 1 else 0
    forward = _layer_forward if setting.checkpointing else _output_forward
    layer = max(_recomputed(shape, setting) if setting.checkpointing else 0, _mlp_backward(shape, setting))
    moments = [
        _Moment("forward pass", kept, forward(shape, setting), before),
        _Moment("output head", end, _head(shape, setting, False), before),
        _Moment("output head, backward", end, _head(shape, setting, True), before),
        _Moment("last norm, backward", end, _norm_backward(shape, setting), before),
        _Moment("last layer, backward", kept + angles + (one if setting.checkpointing else 0), layer, before),
        _Moment("first layer, backward", one + (kept / shape.layers if setting.checkpointing else 0), layer, grown),
        _Moment("optimizer step", 0, 0, grown)]
    if not lora:
        sums = shape.vocabulary * shape.hidden * DTYPE_BYTES[setting.dtype] * (2 if shape.tied else 1)
        moments.append(_Moment("embeddings, backward", angles, sums, grown))
    if "kto" in setting.objective:
        held = 0 if setting.in_model_dtype else _adapter_copies(shape, setting)  # by autocast, through a forward pass
        moments.append(_Moment("KL pass", angles + held, _whole_pass(shape, setting, states, True), before))
    if setting.objective != "sft" and not setting.precomputed:
        work = _whole_pass(shape, setting, states, setting.objective == "sft+kto")
        moments.append(_Moment("reference pass", end, work, before))
    return moments


def _whole_pass(shape: Shape, setting: Setting, states: int, adapters: bool) -> float:
    """Most bytes at work in a pass that keeps nothing: in a layer, or in the head."""
    return max(_layer_forward(shape, setting, adapters), states + _head(shape, setting, False))


def _adapter_copies(shape: Shape, setting: Setting) -> int:
    """The bfloat16 copies that float32 adapters are multiplied in, which backward needs."""
    narrow = setting.lora_r is not None and _stored_width(setting) == 4 and _widths(shape, setting).lora_in == 2
    return 2 * trainable(shape, setting) if narrow else 0


def _kept(shape: Shape, setting: Setting) -> int:
    """What all layers keep: with checkpointing their inputs and the mask, else all but the first norm's input, below
    which no adapter is."""
    width = _widths(shape, setting)
    if setting.checkpointing:
        return setting.tokens * (shape.layers * width.stream * shape.hidden + setting.length)
    first = width.norm_in * shape.hidden if setting.lora_r is not None else 0
    return setting.tokens * (shape.layers * saved_bytes(shape, setting) - first) + _adapter_copies(shape, setting)


def _kept_of_one(shape: Shape, setting: Setting) -> int:
    """What one layer keeps, run again beside its checkpointed input, or alone."""
    width = _widths(shape, setting)
    shared = width.stream * shape.hidden if setting.checkpointing and width.norm_in == width.stream else 0
    return setting.tokens * (saved_bytes(shape, setting) - shared)


def tensor_parts(shape: Shape, setting: Setting) -> tuple[str, dict[str, int]]:
    """The peak's moment, and the bytes of tensors alive at it by what they are."""
    peak = max(_moments(shape, setting), key=lambda moment: moment.kept + moment.working + moment.gradients)
    parts = {"weights": weight_bytes(shape, setting), "reference model": reference_bytes(shape, setting),
             "adapters": adapter_bytes(shape, setting), "optimizer": optimizer_bytes(shape, setting),
             "gradients": peak.gradients, "kept for backward": peak.kept, "at work": peak.working,
             "batch": BATCH_BYTES * setting.tokens}
    return peak.name, {name: round(size) for name, size in parts.items() if size}


# --- the plan ---------------------------------------------------------------------------------------------------------


def peak_parts(shape: Shape, setting: Setting, on_gpu: bool = True) -> tuple[str, dict[str, int]]:
    """``tensor_parts``, on a GPU with the two assumed parts."""
    moment, parts = tensor_parts(shape, setting)
    if on_gpu:
        parts |= {"fragmentation (assumed)": round(FRAGMENTATION * sum(parts.values())),
                  "CUDA context (assumed)": round(CUDA_CONTEXT)}
    return moment, parts
