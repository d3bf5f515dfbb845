"""Peak memory of training adapters on one device by formula.

Bytes are counted for one moment after another of a KTO step of TRL 1.16 with PEFT 0.21: its
``KTOTrainer._compute_loss`` runs the policy on the KL pairs, the policy, the reference on both, then backward. The
largest moment is the peak. What is alive at each was read off the code of transformers' Llama, Qwen2 and Starcoder2
layers (Mistral's are Llama's; Qwen3 and Gemma by their traces), PEFT's LoRA layers (as ``plum_utils.training.speed``
changes them), bitsandbytes' 4-bit products and TRL's chunked log-probabilities, and is held against traces of that
code (tests/training/test_memory.py); DPO and SFT follow by the same formulas, without a trace of their own, and so do
what lesson 04 computes by hand and what reading alone takes. Assumed, not derived, are ``CUDA_CONTEXT`` and
``FRAGMENTATION``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from plum_utils.params import ParamsError, TrainingParams

GIB = 2**30
CUDA_CONTEXT = 0.75 * GIB  # assumed: driver context, kernels, cuBLAS workspaces; 0.4 to 0.9 GiB are usual
FRAGMENTATION = 0.05  # assumed: what the caching allocator holds beyond the tensors, as a share of them
ARCHITECTURES = ("llama", "qwen2", "starcoder2", "mistral", "qwen3", "gemma")  # whose layers the formulas know
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768  # trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE, trl.trainer.utils' chunk
NF4_BLOCK, NF4_OUTER_BLOCK = 64, 256  # bitsandbytes: values to an 8-bit scale, scales to a 32-bit one
NF4_CODES = (16 + 256 + 1) * 4  # a layer's two code books and its offset
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
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
    gated: bool  # SwiGLU (Llama, Qwen2, Qwen3, Mistral) and GeGLU (Gemma), or a plain GELU (Starcoder2)
    attention_bias: bool
    output_bias: bool
    tied: bool
    head_norms: bool = False  # RMSNorm on each head's queries and keys (Qwen3)

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
    def other_weights(self) -> int:
        """Embeddings, output head, norms and biases, which 4-bit quantisation leaves as they are."""
        norms = (2 * self.layers + 1) * self.hidden * (1 if self.gated else 2)
        if self.head_norms:
            norms += 2 * self.layers * self.queries // self.heads
        biases = self.layers * sum(outputs for _, outputs, bias in self.linears if bias)
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + norms + biases

    @property
    def parameters(self) -> int:
        return self.linear_weights + self.other_weights


def shape_of(config: Any) -> Shape:
    """Shape of a config of one of ``ARCHITECTURES``.

    Raises:
        ParamsError: another architecture, whose layers keep other tensors.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ParamsError(f"the memory plan knows the layers of {', '.join(ARCHITECTURES)}, not of {kind!r}; set "
                          "training.quantization and gradient_checkpointing yourself")
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    everywhere = bool(getattr(config, {"qwen2": "", "starcoder2": "use_bias"}.get(kind, "attention_bias"), False))
    return Shape(hidden=config.hidden_size, inner=config.intermediate_size, layers=config.num_hidden_layers,
                 heads=config.num_attention_heads, queries=config.num_attention_heads * head_size,
                 keys=config.num_key_value_heads * head_size, vocabulary=config.vocab_size,
                 gated=kind != "starcoder2", attention_bias=kind == "qwen2" or everywhere, output_bias=everywhere,
                 tied=config.tie_word_embeddings, head_norms=kind == "qwen3")


@dataclass(frozen=True)
class Setting:
    """A training on one device, with nothing left ``auto`` and adapters that compute in the policy's type.

    Every sequence counts as ``max_length`` tokens, all of them scored (unless ``scored`` says how many of a batch are).
    ``on_gpu``: TRL folds a tile of logits in a kernel there, in torch on a CPU.
    """

    training: TrainingParams
    dtype: str = "bfloat16"
    on_gpu: bool = True
    scored: int | None = None

    @property
    def width(self) -> int:
        """Bytes of an element of weights and activations."""
        return DTYPE_BYTES[self.dtype]

    @property
    def nf4(self) -> bool:
        return self.training.quantization == "nf4"

    @property
    def length(self) -> int:
        return self.training.max_length

    @property
    def sequences(self) -> int:
        """Those that go through the policy at a time; DPO's chosen and rejected ones go together."""
        return self.training.batch_size * (2 if self.training.objective == "dpo" else 1)

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @property
    def scored_tokens(self) -> int:
        return self.sequences * (self.length - 1) if self.scored is None else self.scored


def _norm_width(shape: Shape, setting: Setting) -> int:
    """Bytes of an element of what a norm keeps: RMSNorm works in float32, LayerNorm in its input's type."""
    return 4 if shape.gated else setting.width


# --- what stays: weights, adapters, gradients, optimizer --------------------------------------------------------------

def weight_bytes(shape: Shape, setting: Setting) -> int:
    """The policy's weights. NF4 with double quantisation takes 0.5 + 1/64 + 4/(64*256) bytes a value of the layers'
    linear modules, and leaves embeddings, head, norms and biases."""
    if not setting.nf4:
        return shape.parameters * setting.width
    scales = shape.linear_weights // NF4_BLOCK
    codes = shape.layers * len(shape.linears) * NF4_CODES
    return (shape.linear_weights // 2 + scales + scales // NF4_OUTER_BLOCK * 4 + codes
            + shape.other_weights * setting.width)


def _trained(shape: Shape, setting: Setting) -> int:
    """Parameters of the adapters, on every linear module of the layers; each takes four bytes, in whatever type the
    policy is."""
    rank = setting.training.lora_r
    assert rank is not None  # planner.check_known
    return shape.layers * sum(rank * (inputs + outputs) for inputs, outputs, _ in shape.linears)


def _adapter_bytes(shape: Shape, setting: Setting) -> int:
    """The adapters, and for ``sft+kto`` their frozen copy, which is the reference."""
    return 4 * _trained(shape, setting) * (2 if setting.training.objective == "sft+kto" else 1)


def _gradient_bytes(shape: Shape, setting: Setting) -> int:
    """All gradients; several processes hold them once more, in the buckets they exchange."""
    return 4 * _trained(shape, setting) * (2 if setting.training.processes > 1 else 1)


def _optimizer_bytes(shape: Shape, setting: Setting) -> int:
    """Adam's two moments, in float32, or in 8 bits with a float32 scale to 256 values. Paged ones count in full: they
    leave the card only when it is full."""
    count = _trained(shape, setting)
    in_8_bits = setting.training.optimizer in ("adamw_bnb_8bit", "paged_adamw_8bit")
    return 2 * count + 2 * count // 256 * 4 if in_8_bits else 8 * count


# --- what is kept for the backward pass -------------------------------------------------------------------------------

def _saved_bytes(shape: Shape, setting: Setting) -> int:
    """Bytes that one layer keeps of one token, without checkpointing.

    The norms' inputs and their factors; queries, keys and values (repeated to as many heads where a mask forbids
    grouped heads), the attention's output and log-sums; the mask as numbers, or in eager attention each head's
    probabilities, in float32 and as the next product takes them; gate, up and their product's factor; the norms' outputs
    and the MLP's product, which the adapters read, and the adapters' own inner values.
    """
    width = setting.width
    norms = 2 * (_norm_width(shape, setting) * shape.hidden + (4 if shape.gated else 8))
    if shape.head_norms:
        rotated = shape.queries + shape.keys
        norms += 4 * rotated + 4 * rotated * shape.heads // shape.queries
    attention = 4 * width * shape.queries
    if setting.training.attention == "eager":
        attention += (width + 4) * shape.heads * setting.length
    else:
        attention += 4 * shape.heads + width * setting.length
    mlp = (3 if shape.gated else 1) * width * shape.inner
    rank = setting.training.lora_r or 0
    return norms + attention + mlp + width * (2 * shape.hidden + shape.inner + rank * len(shape.linears))


def _kept(shape: Shape, setting: Setting) -> int:
    """What all layers keep: with checkpointing their inputs and the mask, else all but the first norm's input, below
    which no adapter is, and the copies in a narrower type that the adapters are multiplied in."""
    if setting.training.gradient_checkpointing:
        return setting.tokens * (shape.layers * setting.width * shape.hidden + setting.length)
    first = _norm_width(shape, setting) * shape.hidden
    copies = 0 if setting.width == 4 else setting.width * _trained(shape, setting)
    return setting.tokens * (shape.layers * _saved_bytes(shape, setting) - first) + copies


def _kept_of_one(shape: Shape, setting: Setting) -> int:
    """What one layer keeps, run again beside its checkpointed input, or alone."""
    shared = setting.training.gradient_checkpointing and _norm_width(shape, setting) == setting.width
    return setting.tokens * (_saved_bytes(shape, setting) - (setting.width * shape.hidden if shared else 0))


# --- what is at work at a moment --------------------------------------------------------------------------------------

def _dequantised(shape: Shape, setting: Setting) -> int:
    """A layer's largest 4-bit weight in the policy's type, as a product with it needs, and its scales in float32, twice
    over."""
    largest = shape.hidden * shape.inner
    return setting.width * largest + 8 * largest // NF4_BLOCK if setting.nf4 else 0


def _layer_forward(shape: Shape, setting: Setting, adapters: bool = True) -> float:
    """Most bytes at work in a layer of a forward pass that keeps nothing.

    Held are the embeddings, the layer's input and its middle, the norm's output and the mask. The peak comes where the
    MLP's last product with the inner width is made (beside the gate: the module's output, and with adapters their
    product and the scaled one) or where it is taken in; or in eager attention, whose scores are there in the products'
    type, in float32 and as probabilities.
    """
    width = setting.width
    held = 4 * width * shape.hidden + setting.length
    made = held + ((3 if adapters else 2) + shape.gated) * width * shape.inner
    taken = held + width * (shape.inner + shape.hidden)
    most = max(setting.tokens * made, _dequantised(shape, setting) + setting.tokens * taken)
    if setting.training.attention != "eager":
        return most
    scores = shape.heads * setting.length * (width + 8)
    return max(most, setting.tokens * (3 * width * (shape.hidden + shape.queries) + scores))


def _output_forward(shape: Shape, setting: Setting) -> float:
    """At work at the end of a layer that keeps its tensors: its MLP's output module adds up. Embeddings and the layer's
    middle are beside it only where the norms keep copies of them."""
    streams = 1 if _norm_width(shape, setting) == setting.width else 3
    return setting.tokens * ((streams + 4) * setting.width * shape.hidden + setting.length)


def _layer_backward(shape: Shape, setting: Setting) -> float:
    """At work in a layer's backward pass, beside all that it keeps in the end.

    Either its MLP's last product with the inner width is run again (checkpointing), or the gradients of the MLP's
    product are added up, the frozen module's and its adapters', a 4-bit module's weight just before.
    """
    width = setting.width
    hidden, inner = width * shape.hidden, width * shape.inner
    summed = max(setting.tokens * (hidden + 2 * inner), _dequantised(shape, setting) + setting.tokens * (hidden + inner))
    if not setting.training.gradient_checkpointing:
        return summed
    streams = 3 if _norm_width(shape, setting) == width else 4
    return max(summed, setting.tokens * (streams * hidden + inner))


def _head(shape: Shape, setting: Setting, backward: bool) -> float:
    """At work in TRL's chunked log-probabilities: a tile of logits, float32 per-token results; backward the states'
    gradient in float32, then also in their type. In torch a tile has 12 bytes a logit more (its float32 form and two of
    its likes), backward 29 (five, two, a mask)."""
    width, rows = setting.width, min(setting.scored_tokens, TILE_TOKENS)
    work = width * rows * TILE_VOCABULARY + 36 * setting.scored_tokens
    if not setting.on_gpu:
        work += rows * min(shape.vocabulary, TILE_VOCABULARY) * (29 if backward else 12)
    if not backward:
        return work + width * shape.hidden * setting.tokens
    return work + (4 + (0 if width == 4 else width)) * shape.hidden * setting.scored_tokens


def _moments(shape: Shape, setting: Setting) -> Iterator[tuple[str, float, float, float]]:
    """Where the peak can come: a name, and bytes kept for backward, at work, and of gradients."""
    training, width, checkpointing = setting.training, setting.width, setting.training.gradient_checkpointing
    kept, one, layer = _kept(shape, setting), _kept_of_one(shape, setting), _layer_backward(shape, setting)
    states = width * shape.hidden * setting.scored_tokens  # what the head scores, once more as a copy
    angles = 2 * setting.tokens * width * shape.queries // shape.heads
    end = kept + 4 * setting.tokens * shape.hidden + states + angles  # with the last norm's input
    norm = setting.tokens * shape.hidden * (20 - width if shape.gated else width)  # RMSNorm's steps in float32
    head = _head(shape, setting, False)
    grown = _gradient_bytes(shape, setting)
    before = grown if training.accumulation // training.processes > 1 else 0
    yield "forward pass", kept, (_layer_forward if checkpointing else _output_forward)(shape, setting), before
    yield "output head", end, head, before
    yield "output head, backward", end, _head(shape, setting, True), before
    yield "last norm, backward", end, norm, before
    yield "last layer, backward", kept + angles + (one if checkpointing else 0), layer, before
    yield "first layer, backward", one + (kept / shape.layers if checkpointing else 0), layer, grown
    if "kto" in training.objective:
        yield "KL pass", angles, max(_layer_forward(shape, setting), states + head), before
    if training.objective != "sft" and not training.precompute_reference:
        layers = _layer_forward(shape, setting, adapters=training.objective == "sft+kto")
        yield "reference pass", end, max(layers, states + head), before


def tensor_parts(shape: Shape, setting: Setting) -> tuple[str, dict[str, int]]:
    """The peak's moment, and the bytes of tensors alive at it by what they are."""
    moment, kept, working, gradients = max(_moments(shape, setting), key=lambda moment: sum(moment[1:]))
    parts = {"weights": weight_bytes(shape, setting), "adapters": _adapter_bytes(shape, setting),
             "optimizer": _optimizer_bytes(shape, setting), "gradients": gradients, "kept for backward": kept,
             "at work": working, "batch": BATCH_BYTES * setting.tokens}
    return moment, {name: round(size) for name, size in parts.items() if size}


def peak_parts(shape: Shape, setting: Setting) -> tuple[str, dict[str, int]]:
    """``tensor_parts``, on a GPU with the two assumed parts."""
    moment, parts = tensor_parts(shape, setting)
    if setting.on_gpu:
        parts |= {"fragmentation (assumed)": round(FRAGMENTATION * sum(parts.values())),
                  "CUDA context (assumed)": round(CUDA_CONTEXT)}
    return moment, parts


def forward_bytes(shape: Shape, setting: Setting, logits: int = 0) -> float:
    """Most bytes of a forward pass that keeps nothing, weights included; ``logits``: tokens whose logits are made, in the
    policy's type and twice in float32."""
    made = logits * shape.vocabulary * (setting.width + 8)
    return weight_bytes(shape, setting) + setting.tokens * setting.width * shape.hidden + max(
        _layer_forward(shape, setting), made)


def by_hand_bytes(shape: Shape, setting: Setting) -> float:
    """Most bytes of lesson 04's batch by hand, which makes all logits: a forward pass over the batch, or the backward pass
    of one of its rows, without checkpointing."""
    one = replace(setting, training=setting.training.model_copy(update={"batch_size": 1, "gradient_checkpointing": False}))
    back = weight_bytes(shape, one) + _kept(shape, one) + max(
        one.tokens * shape.vocabulary * (one.width + 12), _layer_backward(shape, one))
    stays = _adapter_bytes(shape, setting) + _gradient_bytes(shape, setting)
    return stays + max(forward_bytes(shape, setting, setting.tokens), back)
