"""Stage 1's generator: recorded responses, a server that speaks OpenAI's API, or vLLM in this process (paper, section
4: GPT-4-1106, asked with Figure 3's prompt). What asking will cost is estimated before, and counted after.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from plum_utils.data.instructions import Instruction
from plum_utils.models.completions import Backend
from plum_utils.models.prompts import generator_message, render
from plum_utils.models.sampling import instruction_shards, open_engines, sample_shards
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import ModelNotFound, resolve_model
from plum_utils.params import GeneratorParams, Params
from plum_utils.progress import Bar
from plum_utils.provenance import ROOT
from plum_utils.testgen.server import REFUSED, GeneratorError, HttpBackend, Request, ResponseStore, stored_row

CHARACTERS_PER_TOKEN = 4  # English and code under a byte-level BPE; a token is a byte at least
COMPLETION_TOKENS = 500  # expected where nothing is stored: the bundled Evol-Instruct responses average 506


@dataclass(frozen=True)
class Draw:
    """How many responses to draw for each instruction from a model in this process, and how."""

    n: int
    temperature: float
    max_tokens: int


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked. Tokens: of the prompts at ``CHARACTERS_PER_TOKEN``, at most one a byte (the server's
    chat template adds a few); of the completions the mean of what this model has answered so far (else
    ``COMPLETION_TOKENS``), at most ``max_tokens``. Costs in US dollars, where the prices are given; a model in this
    process costs none."""

    backend: str
    model: str
    stored: int  # responses that are there already
    calls: int
    prompt_tokens: int = 0
    prompt_tokens_at_most: int = 0
    completion_tokens: int = 0
    completion_tokens_at_most: int = 0
    cost: float | None = None
    cost_at_most: float | None = None
    pending: frozenset[str] = field(default=frozenset(), repr=False)  # keys of the requests to be asked

    def table(self) -> pd.DataFrame:
        """Two rows, what is expected and the most that can come."""
        calls = {"backend": self.backend, "model": self.model, "stored": self.stored, "calls": self.calls}
        return pd.DataFrame([
            {"estimate": "expected", **calls, "prompt_tokens": self.prompt_tokens,
             "completion_tokens": self.completion_tokens, "cost": self.cost},
            {"estimate": "at most", **calls, "prompt_tokens": self.prompt_tokens_at_most,
             "completion_tokens": self.completion_tokens_at_most, "cost": self.cost_at_most}])


def estimate(p: Params, instructions: list[Instruction]) -> Estimate:
    """Calls, tokens and cost of the responses that ``responses`` would ask for; asks nobody.

    Of a model in this process the finished shards are not looked at: its calls are all of them.
    """
    how = p.generator
    if how.backend == "recorded":
        return Estimate("recorded", "", sum(len(item.responses) for item in instructions), 0)
    rows = _store(p).read() if how.backend == "openai" else {}
    asked = {request.key: request for request in _requests(how, instructions)}
    new = [request for key, request in asked.items() if key not in rows]
    tokens = _tokens(how, new, rows)
    cost, at_most = (None, None) if how.backend == "vllm" else (
        _cost(how, tokens["prompt_tokens"], tokens["completion_tokens"]),
        _cost(how, tokens["prompt_tokens_at_most"], tokens["completion_tokens_at_most"]))
    return Estimate(how.backend, how.model, len(asked) - len(new), len(new), **tokens, cost=cost, cost_at_most=at_most,
                    pending=frozenset(request.key for request in new))


def responses(p: Params, instructions: list[Instruction], folder: Path) -> list[Instruction]:
    """The instructions with the generator's responses: recorded ones as they are, else ``generator.responses`` each.

    Args:
        folder: for the shards of a model in this process; a server's answers are in ``generator.store``.

    Raises:
        GeneratorError: recorded responses are missing, the estimate is above ``max_cost``, or the generator cannot be
            asked or did not answer.
    """
    how = p.generator
    if how.backend == "recorded":
        return _recorded(instructions)
    if how.backend == "vllm":
        return _from_vllm(p, instructions, folder)
    expected = estimate(p, instructions)
    _check_budget(how, expected)
    requests = _requests(how, instructions)
    rows = HttpBackend(how, _store(p)).ask(requests) if expected.calls else _store(p).read()  # all there: no key needed
    texts = iter([rows[request.key]["response"] for request in requests])
    return [replace(item, responses=tuple(next(texts) for _ in range(how.responses))) for item in instructions]


def store_responses(p: Params, instructions: list[Instruction], response: str) -> None:
    """Put a response to every request into the store of a server's model, so that nothing is asked."""
    store = _store(p)
    with store.writing() as rows:
        for request in _requests(p.generator, instructions):
            if request.key not in rows:
                store.append(stored_row(request, "none", response, "stop", 0, served_model=request.model))


def ledger(p: Params, instructions: list[Instruction], before: Estimate) -> pd.DataFrame:
    """What the responses took, one row for each server that they came from; before anything was answered, none.

    Args:
        before: the estimate made before they were asked for; it tells what was asked since from what was stored.

    Returns:
        Columns ``model``, ``server``, ``responses``, ``from_store``, ``asked``, ``tries`` (of those asked),
        ``refused`` (empty responses, see ``HttpBackend.ask``), ``missing`` (failed; the same on each row),
        ``without_usage`` (the server counted no tokens: they are missing in the sums), ``prompt_tokens``,
        ``completion_tokens``, ``cost`` of all and ``cost_asked`` of those asked, in US dollars. Of backends other than
        ``openai`` only ``responses``, ``from_store`` and ``asked`` are known.
    """
    how = p.generator
    if how.backend != "openai":
        n = before.stored or before.calls
        return pd.DataFrame([{"model": how.model if how.backend == "vllm" else "", "server": how.backend,
                              "responses": n, "from_store": before.stored, "asked": before.calls}])
    rows, wanted = _store(p).read(), {request.key for request in _requests(how, instructions)}
    frame = pd.DataFrame([rows[key] | {"asked": key in before.pending} for key in sorted(wanted) if key in rows])
    missing = len(wanted - set(rows))
    return pd.DataFrame([_ledger_row(how, str(server), missing, part)
                         for server, part in (frame.groupby("server") if len(frame) else ())])


def _ledger_row(how: GeneratorParams, server: str, missing: int, part: pd.DataFrame) -> dict[str, Any]:
    asked = part[part.asked]
    return {"model": how.model, "server": server, "responses": len(part), "from_store": len(part) - len(asked),
            "asked": len(asked), "tries": int(asked.tries.sum()), "refused": int((part.finish_reason == REFUSED).sum()),
            "missing": missing, "without_usage": int(part.completion_tokens.isna().sum()),
            "prompt_tokens": int(part.prompt_tokens.sum()), "completion_tokens": int(part.completion_tokens.sum()),
            "cost": _cost(how, part.prompt_tokens.sum(), part.completion_tokens.sum()),
            "cost_asked": _cost(how, asked.prompt_tokens.sum(), asked.completion_tokens.sum())}


def generate_responses(p: Params, backend: Backend, tokenizer: Any, instructions: list[Instruction], folder: Path,
                       model: str, draw: Draw, label: str) -> list[Instruction]:
    """``draw.n`` responses to Figure 3's prompt for each instruction from a model in this process; one file a shard
    (``<label>_0000.jsonl``), a finished shard is never generated again.

    Args:
        model: its name, which the shards' marks hold.

    Returns:
        The instructions, each with the responses just generated as its only ones.
    """
    parts = instruction_shards(p, label, instructions, lambda text: render(tokenizer, generator_message(text)))
    bar = Bar("generator", len(parts), items=draw.n * len(instructions), item="response")
    opened = [model, p.policy.dtype, (p.generator.engine or p.engine).what_decides()]
    rows = sample_shards(backend, parts, folder, bar, opened, **asdict(draw))
    texts = iter([row["completion"] for row in rows])
    return [replace(item, responses=tuple(islice(texts, draw.n))) for item in instructions]


def _recorded(instructions: list[Instruction]) -> list[Instruction]:
    without = [item.instruction_id for item in instructions if not item.responses]
    if without:
        raise GeneratorError(f"generator.backend is 'recorded', and {len(without)} of {len(instructions)} instructions "
                             f"(the first: {without[0]}) have no recorded responses; add them to the data file, or set "
                             "generator.backend to openai or vllm")
    return instructions


def _from_vllm(p: Params, instructions: list[Instruction], folder: Path) -> list[Instruction]:
    how = p.generator
    if importlib.util.find_spec("vllm") is None:
        raise GeneratorError("generator.backend is 'vllm', which is not installed; install the package's extra cpu or "
                             "gpu, or ask a vLLM server: generator.backend openai")
    try:
        path = resolve_model(how.model)
    except ModelNotFound as error:
        raise GeneratorError(str(error).replace("policy.model", "generator.model")) from None
    tokenizer = load_tokenizer(path)
    longest = max(len(tokenizer(render(tokenizer, generator_message(item.instruction)))["input_ids"])
                  for item in instructions)
    engine = (how.engine or p.engine).model_copy(update={"max_model_len": longest + how.max_tokens})
    backend = open_engines(p, "vllm", path, None, engine)
    try:
        return generate_responses(p, backend, tokenizer, instructions, folder, how.model,
                                  Draw(how.responses, how.temperature, how.max_tokens), "generator")
    finally:
        backend.close()


def _requests(how: GeneratorParams, instructions: list[Instruction]) -> list[Request]:
    return [Request(f"{item.instruction_id}/{attempt}", how.model, generator_message(item.instruction),
                    how.temperature, how.max_tokens, attempt)
            for item in instructions for attempt in range(how.responses)]


def _store(p: Params) -> ResponseStore:
    return ResponseStore(ROOT / p.generator.store, p.generator.model)


def _tokens(how: GeneratorParams, new: list[Request], rows: dict[str, dict[str, Any]]) -> dict[str, int]:
    counted = [row["completion_tokens"] for row in rows.values() if row["completion_tokens"]]
    expected = min(sum(counted) / len(counted) if counted else COMPLETION_TOKENS, how.max_tokens)
    return {"prompt_tokens": sum(len(request.message) for request in new) // CHARACTERS_PER_TOKEN,
            "prompt_tokens_at_most": sum(len(request.message.encode("utf-8", "replace")) for request in new),
            "completion_tokens": round(expected * len(new)), "completion_tokens_at_most": how.max_tokens * len(new)}


def _cost(how: GeneratorParams, prompt_tokens: float, completion_tokens: float) -> float | None:
    if how.price_prompt is None or how.price_completion is None:
        return None
    return (prompt_tokens * how.price_prompt + completion_tokens * how.price_completion) / 1e6


def _check_budget(how: GeneratorParams, expected: Estimate) -> None:
    if how.max_cost is None:
        return
    if expected.cost_at_most is None:
        raise GeneratorError("generator.max_cost needs the prices: set generator.price_prompt and "
                             "generator.price_completion, in US dollars for a million tokens")
    if expected.cost_at_most > how.max_cost:
        raise GeneratorError(
            f"{expected.calls} calls to {how.model} may cost up to ${expected.cost_at_most:.2f} (expected: "
            f"${expected.cost:.2f}), more than generator.max_cost ${how.max_cost:.2f}; nothing was asked. Raise "
            "max_cost, or lower data.train_limit, generator.responses or generator.max_tokens")
