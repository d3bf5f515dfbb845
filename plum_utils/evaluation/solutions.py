"""Stages 5 and 6: ask a policy, take the program out of its answer, have it judged; resumable."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Callable, TypeVar

from plum_utils.data.evalplus import OVERRIDES
from plum_utils.evaluation.scoring import score
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.completions import Backend
from plum_utils.models.extract import extract_code
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.sampling import opened_with, prompt_seed, sample_shards
from plum_utils.params import Params
from plum_utils.progress import Bar
from plum_utils.runs import fingerprint, shards, side_by_side
from plum_utils.sandbox import Sandbox
from plum_utils.sandbox.pool import ADDRESS

Job = TypeVar("Job")
MOST_LINES = 150       # evalplus' sanitizer takes time with the cube of a completion's lines: 2 s at 100, 14 s at 200


def take_program(problem: Any, completion: str, postprocess: str = "extract", template: str = "chat") -> str:
    """The program in a completion.

    Args:
        problem: one of HumanEval or MBPP may go through evalplus; all others (which need no ``suite``) are extracted.
        postprocess: ``evaluation.postprocess``: ``extract`` (``extract.extract_code``) or ``evalplus`` (``sanitised``).
        template: the policy's prompt template (``policy.prompt``).
    """
    if postprocess == "evalplus" and getattr(problem, "suite", None) in OVERRIDES:
        return sanitised(completion, problem.entry_point, template)
    return extract_code(completion, template, script=getattr(problem, "is_script", False))


def sanitised(completion: str, entry_point: str, template: str = "chat") -> str:
    """The program that evalplus takes out of a chat model's completion, by its own ``evalplus.sanitize`` (0.3.1).

    The longest run of lines that parses; of it the imports, and the definitions that ``entry_point`` needs. As in
    evalplus' code generation, tabs become four spaces first. It only parses, with ``ast`` and tree-sitter; nothing is
    run. Texts that it cannot take (more than ``MOST_LINES`` lines, or an error of its own, for instance on a lone
    surrogate) are left to ``extract_code``.
    """
    from evalplus.sanitize import sanitize

    text = completion.replace("\t", "    ")
    if text.count("\n") >= MOST_LINES:
        return extract_code(completion, template)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the completion's own syntax
            return sanitize(text, entry_point)
    except (ValueError, RecursionError, OverflowError):
        return extract_code(completion, template)


def solve_all(backend: Backend, solve: Callable[[Job], list[dict[str, Any]]], jobs: list[Job]
              ) -> dict[Job, list[dict[str, Any]]]:
    """``solve(job)`` by job, as many at a time as the backend has engines. Each is one call to one engine (``solve`` asks
    ``generate_solutions`` once), so its rows are those of a single engine."""
    engines = getattr(backend, "replicas", 1)
    bar = Bar("solutions", len(jobs), "suite", hidden=engines == 1)

    def solved(job: Job) -> list[dict[str, Any]]:
        rows = solve(job)
        bar.add()
        return rows

    with bar:
        return dict(zip(jobs, side_by_side(solved, jobs, engines)))


def generate_solutions(p: Params, backend: Backend, tokenizer: Any, problems: list[Any], folder: Path, *, n: int,
                       temperature: float, max_tokens: int, adapter: Path | None, label: str, top_p: float = 1.0,
                       stop: list[str] | None = None, prompt: Callable[[Params, Any, Any], str] | None = None,
                       program: Callable[[Params, Any, str], str] | None = None) -> list[dict[str, Any]]:
    """``n`` solutions for each problem (``temperature`` 0: greedy, one), kept by shard like the training samples.

    One shard holds all problems, for bf16 results depend on the batch: baseline and policy see the same batches.

    Args:
        problems: objects with ``task_id`` and ``instruction``.
        stop: without, ``sampling.stop``.
        prompt: makes the exact prompt of a problem; without, ``policy_prompt``.
        program: takes the program for a problem out of a completion; without, ``take_program``.

    Returns:
        Rows ``task_id``, ``sample_index``, ``prompt``, ``prompt_digest``, ``completion``, ``end`` (the end token's text,
        where one was sampled), ``solution`` (by ``evaluation.postprocess``; taken out of the completion here, not kept in
        the shards), ``finish_reason``, ``n_tokens``.
    """
    by_id = {problem.task_id: problem for problem in problems}
    trained = adapter_digest(adapter)
    asked = [{"task_id": problem.task_id, "seed": prompt_seed(p, label, trained, problem.task_id),
              "prompt": prompt(p, tokenizer, problem) if prompt else policy_prompt(p, tokenizer, problem.instruction)}
             for problem in problems]
    model = [*opened_with(p), "served" if adapter and p.sampling.adapters == "serve" else "merged"]
    bar = Bar(label, 1, items=n * len(problems), hidden=getattr(backend, "replicas", 1) > 1)  # solve_all has one for all
    rows = sample_shards(backend, {label: asked}, folder, bar, model, adapter=str(adapter) if adapter else None,
                         n=n, temperature=temperature, top_p=top_p, max_tokens=max_tokens, stop=p.sampling.stop if stop is None else stop,
                         stop_after_program=stop is None and p.sampling.stop_after_program)

    def taken(problem: Any, completion: str) -> str:
        if program is not None:
            return program(p, problem, completion)
        return take_program(problem, completion, p.evaluation.postprocess, p.policy.prompt)

    kept = ("task_id", "sample_index", "prompt", "completion", "end", "finish_reason", "n_tokens")
    return [{name: row[name] for name in kept} | {"prompt_digest": fingerprint(row["prompt"]),
                                                  "solution": taken(by_id[row["task_id"]], row["completion"])}
            for row in rows]


def score_solutions(p: Params, problems: list[Any], solutions: list[dict[str, Any]], sandbox: Sandbox, folder: Path,
                    label: str) -> list[dict[str, Any]]:
    """Judged rows with how each solution was generated; kept by shard, like the solutions."""
    def make(_: str) -> list[dict[str, Any]]:
        return [row | {"detail": ADDRESS.sub("0x...", row["detail"]), "prompt_digest": made["prompt_digest"],
                       "finish_reason": made["finish_reason"], "n_tokens": made["n_tokens"]}
                for row, made in zip(score(problems, solutions, sandbox, progress=False), solutions)]

    mark = fingerprint([p.sandbox.what_decides(), [problem.digest for problem in problems], solutions])
    return shards(folder, [label], make, mark, Bar(f"judging {label}", 1, items=len(solutions), item="solution"))
