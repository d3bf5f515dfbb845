"""Sampling wherever PyTorch runs: a loop of our own over a ``transformers`` model and its KV cache.

``model.generate`` copies each row's cache several times a step on a CPU, computes a prompt once for each of its samples
and carries finished rows along until the last one ends (docs/speed.md, "Sampling"). Here a prompt is computed once, a
row leaves the batch soon after its stop string or end token, and the cache grows in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from os.path import commonprefix
from typing import Any, Callable, Iterator

import psutil
import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    TopPLogitsWarper,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import sdpa_mask

from plum_utils.models.completions import Completion, Ending, Watch, draw_seeds, release_memory
from plum_utils.models.number_types import number_type
from plum_utils.models.stopping import stopping_point
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import load_model

MOST_ROWS = 512  # of a batch: more are no faster, and wait longer for the longest
ROOM = 32  # tokens by which a cache grows at a time
CROWDED = 7 / 8  # share of rows still running at which the others leave the batch; each time the cache is copied once
AT_ONCE = 64  # tokens whose logits are turned into entropies together: 77 MB with 100,000 of a vocabulary
GROUPED = "plum_grouped_sdpa"


class TransformersBackend:
    """Any causal model that ``transformers`` loads, with a fast tokenizer; about vLLM's rate on a CPU in float32.

    A row's random numbers are its own (``draw_seeds``), so that they do not depend on how rows are batched; rounding
    does, by as much as the number type allows.
    """

    name = "transformers"

    def __init__(self, model_path: str, dtype: str = "auto", model: Any = None):
        """``model``: one that is there already, which is taken as it is: a policy in training, with its adapter."""
        self._tokenizer = load_tokenizer(model_path)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = _load(model_path, dtype) if model is None else model
        self._ends = _end_tokens(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        self._adapters: dict[str, str] = {}

    def generate(self, prompts: list[str], n: int = 1, temperature: float = 0.0, top_p: float = 1.0,
                 max_tokens: int = 512, stop: list[str] | None = None, stop_after_program: bool = False,
                 seed: int | list[int] = 0, adapter: str | None = None, watch: Watch | None = None
                 ) -> list[list[Completion]]:
        self._use(adapter)
        ends = partial(stopping_point, stop=stop or [], after_program=stop_after_program)
        draws = n if temperature else 1  # greedy decoding has one outcome
        encoded = [tuple(self._tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
        rows = [_Row(number, encoded[number // draws]) for number in range(len(prompts) * draws)]
        noise = 1 - torch.stack([torch.rand(max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(one))
                                 for own in draw_seeds(seed, len(prompts), draws) for one in own] or [torch.empty(0)])
        noise = noise.to(self._model.device)

        def choose(logits: torch.Tensor, running: list[_Row], step: int) -> torch.Tensor:
            return choose_tokens(logits, noise[[row.number for row in running], step], temperature, top_p)

        by_length = sorted(rows, key=lambda row: len(row.prompt))
        size = self._rows_that_fit(max(map(len, encoded), default=0) + max_tokens)
        for start in range(0, len(rows), size):
            for _ in self._sample(by_length[start:start + size], choose, max_tokens, ends):
                if watch is not None:
                    watch(sum(len(row.ids) for row in rows), sum(bool(row.finish) for row in rows))
        completions = [self._completion(row, ends) for row in rows]
        return [completions[i * draws:(i + 1) * draws] * (n // draws) for i in range(len(prompts))]

    def entropies(self, prompts: list[str], answers: list[str], temperature: float, adapter: str | None = None
                  ) -> list[list[float]]:
        """How unsure the policy was at each token of answers that are there already: ``entropy`` of its next token, in nats,
        given the prompt and the tokens before. One answer is read at a time, so that none depends on its neighbours.

        Args:
            answers: what followed each prompt, with the end token's text where one was sampled. A prompt and its answer are
                split into tokens as one text, as in training; where the policy had split its answer in another way,
                that one is not read.

        Returns:
            A list for each answer, one number for each of its tokens.
        """
        self._use(adapter)
        return [self._read(prompt, answer, temperature) for prompt, answer in zip(prompts, answers, strict=True)]

    def _read(self, prompt: str, answer: str, temperature: float) -> list[float]:
        asked, whole = (self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer))
        told = len(whole) - len(commonprefix([asked, whole]))
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([whole], device=self._model.device), use_cache=False,
                                 logits_to_keep=told + 1).logits[0, :-1]
            return [value for part in logits.split(AT_ONCE) for value in entropy(part, temperature).tolist()]

    def _sample(self, rows: list[_Row], choose: Callable, max_tokens: int, ends: Callable) -> Iterator[None]:
        """Complete the rows; yields after every step. ``ends``: ``stopping_point`` of a text."""
        with torch.inference_mode():
            batch = _Batch(self._model, self._tokenizer, rows, max_tokens)
        for step in range(max_tokens):
            with torch.inference_mode():
                tokens = choose(batch.logits, batch.rows, step)
                for row, token in zip(batch.rows, tokens.tolist()):
                    self._take(row, token, max_tokens, ends)
                running = [place for place, row in enumerate(batch.rows) if not row.finish]
                if running and len(running) <= CROWDED * len(batch.rows):
                    batch.keep(running)
                    tokens = tokens[running]
                if running:
                    batch.compute(tokens)
            yield
            if not running:
                return

    def _take(self, row: _Row, token: int, max_tokens: int, ends: Callable) -> None:
        """Add a token to a row, unless it has finished already."""
        if row.finish:
            return
        row.ids.append(token)
        if token in self._ends:
            row.finish = "end_token"
            return
        seen = len(row.text)
        row.text += self._decoded(row, token)
        if ends(row.text, seen=seen) is not None:
            row.finish = "stop_string"
        elif len(row.ids) == max_tokens:
            row.finish = "length"

    def _decoded(self, row: _Row, token: int) -> str:
        """What the token adds to the row's text, as far as whole characters go."""
        try:
            return row.stream.step(self._tokenizer.backend_tokenizer, token) or ""
        except Exception as error:  # of bytes that are no text; vLLM begins anew there, too
            if not str(error).startswith("Invalid prefix"):
                raise
            row.stream = DecodeStream(skip_special_tokens=True)
            return row.stream.step(self._tokenizer.backend_tokenizer, token) or ""

    def _completion(self, row: _Row, ends: Callable) -> Completion:
        ids = row.ids[:-1] if row.ids[-1] in self._ends else row.ids
        # Behind its prompt: by itself a completion loses its first space with sentencepiece's kind of decoder.
        asked, whole = (self._tokenizer.decode(list(tokens), skip_special_tokens=True)
                        for tokens in (row.prompt, [*row.prompt, *ids]))
        text = whole[len(asked):]
        cut = ends(text)
        assert row.finish
        finish = "stop_string" if cut is not None and cut < len(text) else row.finish
        end = self._tokenizer.decode(row.ids[-1:]) if finish == "end_token" else ""
        return Completion(text[:cut], finish, len(row.ids), end)

    def _rows_that_fit(self, tokens: int) -> int:
        """How many rows of ``tokens`` tokens take half of the free memory. A power of two, so that the batches of a call
        are the same ones when a little more or less memory is free."""
        on_gpu = self._model.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
        logits = 16 * self._model.config.get_text_config().vocab_size  # four float32 numbers a token of the vocabulary
        fitting = max(1, free // 2 // (tokens * self._token_bytes() + logits))
        return min(MOST_ROWS, 1 << fitting.bit_length() - 1)

    def _token_bytes(self) -> int:
        """What the KV cache takes for one token of one row."""
        with torch.inference_mode():
            cache = self._model(input_ids=torch.tensor([[0]], device=self._model.device), use_cache=True).past_key_values
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    def _use(self, adapter: str | None) -> None:
        from peft import PeftModel

        if adapter is None:
            if self._adapters:
                self._model.disable_adapter_layers()
            return
        if adapter not in self._adapters:
            name = f"adapter{len(self._adapters)}"
            if self._adapters:
                self._model.load_adapter(adapter, adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, adapter, adapter_name=name).eval()
            self._adapters[adapter] = name
        self._model.enable_adapter_layers()
        self._model.set_adapter(self._adapters[adapter])

    def close(self) -> None:
        del self._model
        release_memory()


def _load(model_path: str, dtype: str) -> Any:
    attention = None if torch.cuda.is_available() else GROUPED  # a GPU's fast kernels take no groups beside a mask
    return load_model(model_path, number_type(dtype).name, attn_implementation=attention).eval()


def entropy(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropy of softmax(logits / temperature), in nats and float32.

    Args:
        logits: (tokens, vocabulary).

    Returns:
        (tokens,), each between 0 and the logarithm of the vocabulary's size.
    """
    return torch.special.entr((logits.float() / temperature).softmax(-1)).sum(-1)


def choose_tokens(logits: torch.Tensor, noise: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The next token of each row.

    Args:
        logits: (rows, vocabulary).
        noise: (rows,), uniform in (0, 1]; a token is where the sum of the probabilities first reaches it. On a CPU this
            takes an eighth of ``torch.multinomial``'s time, which draws a number for every token of the vocabulary.
    """
    if not temperature:
        return logits.argmax(-1)
    scores = logits.float() / temperature
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    heights = scores.softmax(-1).cumsum_(-1)
    return torch.searchsorted(heights, (noise[:, None] * heights[:, -1:]).to(heights.dtype)).squeeze(1)


@dataclass
class _Row:
    """One completion as it grows; ``ids`` include the end token."""

    number: int
    prompt: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    finish: Ending | None = None  # not complete yet
    text: str = ""
    stream: DecodeStream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = DecodeStream(ids=list(self.prompt), skip_special_tokens=True)


class _Batch:
    """Rows computed together; those of one prompt share its computation. ``logits`` (rows, vocabulary) are the next
    token's."""

    def __init__(self, model: Any, tokenizer: Any, rows: list[_Row], max_tokens: int):
        self.rows, self._model = rows, model
        prompts = list(dict.fromkeys(row.prompt for row in rows))
        padded = tokenizer.pad({"input_ids": [list(ids) for ids in prompts]}, return_tensors="pt").to(model.device)
        mask = padded["attention_mask"]
        self._length = mask.shape[1]
        self._positions = mask.sum(1, keepdim=True)
        self._mask = torch.cat([mask, mask.new_ones(len(prompts), max_tokens)], 1)
        layers = DynamicCache(config=model.config).layers
        self._cache = Cache([GrowingLayer() if type(layer) is DynamicLayer else layer for layer in layers])
        self._forward(padded["input_ids"], (mask.cumsum(1) - 1).clamp(min=0))
        place = {prompt: number for number, prompt in enumerate(prompts)}
        self._select([place[row.prompt] for row in rows])

    def compute(self, tokens: torch.Tensor) -> None:
        """Take one token (rows,) further."""
        self._length += 1
        self._forward(tokens[:, None], self._positions)
        self._positions = self._positions + 1

    def keep(self, places: list[int]) -> None:
        """Drop all rows but those at these places."""
        self.rows = [self.rows[place] for place in places]
        self._select(places)

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        self.logits = self._model(input_ids=tokens, attention_mask=self._mask[:, :self._length], position_ids=positions,
                                  past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def _select(self, places: list[int]) -> None:
        chosen = torch.tensor(places, device=self._mask.device)
        self._cache.batch_select_indices(chosen)
        self.logits, self._mask, self._positions = self.logits[chosen], self._mask[chosen], self._positions[chosen]


class GrowingLayer(DynamicLayer):
    """A layer's keys and values with room for the next tokens: ``DynamicLayer`` copies all of them at every token."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._blocks: tuple[torch.Tensor, ...] = ()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **named: Any
               ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._blocks or end > self._blocks[0].shape[-2]:
            self._blocks = tuple(_roomy(held, new, start, end) for held, new in
                                 ((self.keys, key_states), (self.values, value_states)))
        for block, new in zip(self._blocks, (key_states, value_states)):
            block[:, :, start:end] = new
        self.keys, self.values = (block[:, :, :end] for block in self._blocks)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._blocks = ()


def _roomy(held: torch.Tensor, new: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """(rows, heads, ``end`` and room, width), the first ``start`` tokens copied from ``held``."""
    rows, heads, _, width = new.shape
    block = new.new_empty(rows, heads, end + ROOM, width)
    if start:
        block[:, :, :start] = held
    return block


def _end_tokens(*found: int | list[int] | None) -> set[int]:
    return {token for one in found if one is not None for token in (one if isinstance(one, list) else [one])}


def _grouped_attention(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                       attention_mask: torch.Tensor | None, scaling: float | None = None, is_causal: bool | None = None,
                       dropout: float = 0.0, **_: Any) -> tuple[torch.Tensor, None]:
    """``sdpa`` with several query heads for one of keys and values; transformers' own copies keys and values for each
    query head first, which takes eleven times as long on a CPU."""
    causal = query.shape[2] > 1 and attention_mask is None and (is_causal is None or is_causal)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=True)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, _grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
