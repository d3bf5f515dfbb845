"""What the notebooks call between their lessons: opening a stage, and the resumable loops of sampling and judging."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from plum_utils.data.livecodebench import grade
from plum_utils.evaluation import score, take_program
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.completions import Backend
from plum_utils.models.number_type import settled
from plum_utils.models.prompts import policy_prompt
from plum_utils.params import Params, load_params
from plum_utils.progress import Bar
from plum_utils.runs import Run, fingerprint, shards
from plum_utils.sandbox import Sandbox
from plum_utils.sandbox.pool import ADDRESS
from plum_utils.stage_inputs import find_inputs


def open_stage(params: dict[str, Any] | str, run_dir: str, stage: str) -> tuple[Params, Run]:
    """The validated parameters, settled for this device, and the run's folder, with all that the stage reads in it. From then on the process works
    in the repository's root, so that relative paths in the parameters mean the same by hand and in a run.

    Args:
        params: what the pipeline passes (a dictionary), or the path of a parameter file when a notebook is opened by
            hand; relative paths count from the repository's root or from ``notebooks/``.
        stage: the notebook's own, as ``03_preferences``.

    Raises:
        MissingInputs: an earlier notebook has not run; the message says which, and the command that runs it.
    """
    root = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    loaded = settled(Params.model_validate(params) if isinstance(params, dict) else load_params(root / params))
    os.chdir(root)
    run = Run(root / run_dir)
    find_inputs(loaded, run, stage, params if isinstance(params, str) else None)
    return loaded, run


def caption(p: Params, text: str) -> Markdown:
    """A figure's or table's caption: the finding, with the parameters it was made with."""
    warning = " **Smoke run: not evidence.**" if p.name.startswith("smoke") else ""
    return Markdown(f"*{text} Parameters: `{p.name}`.*{warning}")


def generate_solutions(p: Params, backend: Backend, tokenizer: Any, problems: list[Any], folder: Path, *, n: int,
                       temperature: float, max_tokens: int, adapter: Path | None, label: str) -> list[dict[str, Any]]:
    """``n`` solutions for each problem (``temperature`` 0: greedy, one), kept by shard like the training samples.

    One shard holds all problems, for bf16 results depend on the batch: baseline and policy see the same batches.

    Args:
        problems: objects with ``task_id`` and ``instruction``.

    Returns:
        Rows ``task_id``, ``sample_index``, ``prompt_digest``, ``completion``, ``solution`` (by
        ``evaluation.postprocess``; taken out of the completion here, not kept in the shards), ``finish_reason``,
        ``n_tokens``.
    """
    def make(_: str) -> list[dict[str, Any]]:
        prompts = [policy_prompt(p, tokenizer, problem.instruction) for problem in problems]
        outputs = bar.generate(backend, prompts, n=n, temperature=temperature, max_tokens=max_tokens,
                               stop=p.sampling.stop, seed=p.seed + 77, adapter=str(adapter) if adapter else None)
        return [{"task_id": problem.task_id, "sample_index": index, "prompt_digest": fingerprint(prompt),
                 "completion": out.text, "finish_reason": out.finish_reason, "n_tokens": out.n_tokens}
                for problem, prompt, outs in zip(problems, prompts, outputs) for index, out in enumerate(outs)]

    mark = fingerprint([p.policy.model_dump(), p.sampling.stop, p.seed, n, temperature, max_tokens, backend.name,
                        adapter_digest(adapter), [(problem.task_id, problem.instruction) for problem in problems]])
    by_id, bar = {problem.task_id: problem for problem in problems}, Bar(label, 1, items=n * len(problems))
    return [row | {"solution": take_program(by_id[row["task_id"]], row["completion"], p.evaluation.postprocess,
                                            p.policy.prompt)}
            for row in shards(folder, [label], make, mark, bar)]


def score_solutions(p: Params, problems: list[Any], solutions: list[dict[str, Any]], sandbox: Sandbox, folder: Path,
                    label: str, seconds: float | None = None) -> list[dict[str, Any]]:
    """Judged rows with how each solution was generated; kept by shard, like the solutions.

    Args:
        seconds: limit of one test, for LiveCodeBench's problems (``livecodebench.grade``); all others are judged by
            ``evaluation.score``.
    """
    def make(_: str) -> list[dict[str, Any]]:
        scored = grade(problems, solutions, sandbox, seconds) if seconds else \
            score(problems, solutions, sandbox, progress=False)
        return [row | {"detail": ADDRESS.sub("0x...", row["detail"]), "prompt_digest": made["prompt_digest"],
                       "finish_reason": made["finish_reason"], "n_tokens": made["n_tokens"]}
                for row, made in zip(scored, solutions)]

    mark = fingerprint([p.sandbox.what_decides(), seconds, [asdict(problem) for problem in problems], solutions])
    return shards(folder, [label], make, mark, Bar(f"judging {label}", 1, items=len(solutions), item="solution"))
