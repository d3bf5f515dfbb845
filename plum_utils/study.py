"""What the notebooks call between their lessons: opening a stage, and the resumable loops of sampling and judging."""

from __future__ import annotations

import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from IPython.display import Markdown

from plum_utils.data.livecodebench import grade
from plum_utils.data.selection import training_instructions
from plum_utils.evaluation import score, take_program
from plum_utils.models.adapters import adapter_digest
from plum_utils.models.completions import Backend
from plum_utils.models.number_type import settled
from plum_utils.models.prompts import policy_prompt
from plum_utils.models.weights import resolve_model
from plum_utils.params import Params, load_params
from plum_utils.progress import Bar
from plum_utils.runs import Run, fingerprint, make_shards, shard_rows, shards
from plum_utils.sandbox import Program, Sandbox
from plum_utils.sandbox.pool import ADDRESS
from plum_utils.stage_inputs import find_inputs
from plum_utils.static_checks import check_programs

JUDGED = 1000  # samples a shard: one mypy build, and what a kill can cost


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


def gold_rows(p: Params) -> list[dict[str, Any]]:
    """SFT rows of the data set's own solutions under the policy's prompt, the end token after each (paper, section 3:
    SFT relies on gold solutions, PLUM never sees them).

    Raises:
        ValueError: the data set has no solutions.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(p.policy.model, p.policy.revision))
    rows = [{"instruction_id": item.instruction_id,
             "prompt": [{"role": "user", "content": policy_prompt(p, tokenizer, item.instruction)}],
             "completion": [{"role": "assistant", "content": item.solution + tokenizer.eos_token}]}
            for item in training_instructions(p) if item.solution]
    if not rows:
        raise ValueError(f"training.sft_solutions: {p.data.train!r} brings no solutions of its own; use chosen, or a "
                         "data set that has them")
    return rows


def judge_samples(p: Params, samples: Iterable[dict[str, Any]], suites: dict[str, str], sandbox: Sandbox, folder: Path,
                  references: dict[str, str] | None = None, total: int | None = None) -> Iterator[dict[str, Any]]:
    """A verdict for each sample whose instruction has a consistent suite; resumable by shard of ``JUDGED`` samples,
    of which only one is in memory at a time.

    Args:
        references: instruction id -> a solution that passes its suite, which tells the sandbox whether the tests can
            run apart from the candidate and how long they take.
        total: number of samples to judge, for the progress bar.

    Returns:
        When all are judged, an iterator over rows of the ``verdicts`` contract: instruction_id, sample_index, status,
        assurance, detail, executed, mypy, mypy_codes; no times, so that the same samples give the same file. Samples
        that do not parse are not executed; those that mypy rejects are, so that notebook 03 can count how often the
        two disagree.
    """
    judged = (row for row in samples if row["instruction_id"] in suites)
    references = references or {}

    def make(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        numbers: list[int] = []

        def ended(n: int) -> None:
            numbers.append(n)  # safe in the sandbox's threads, which += is not
            watch(0, sum(numbers))

        with bar.within(len(rows)) as watch:
            return _judge(p, rows, suites, references, sandbox, ended)

    def mark(rows: list[dict[str, Any]]) -> str:
        ids = sorted({row["instruction_id"] for row in rows})
        return fingerprint([p.sandbox.what_decides(), p.labels.mypy,
                            [(row["instruction_id"], row["sample_index"], row["code"]) for row in rows],
                            [(name, suites[name], references.get(name)) for name in ids]])

    parts = ((f"shard_{number:05d}", rows) for number, rows in enumerate(_batches(judged, JUDGED)))
    bar = Bar("judging", total and -(-total // JUDGED), items=total, item="sample")
    return shard_rows(make_shards(folder, parts, make, mark, bar))


def _batches(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, size)):
        yield batch


def _judge(p: Params, rows: list[dict[str, Any]], suites: dict[str, str], references: dict[str, str],
           sandbox: Sandbox, ended: Callable[[int], object]) -> list[dict[str, Any]]:
    names = [f"{row['instruction_id']}/{row['sample_index']}" for row in rows]
    codes = {name: row["code"] for name, row in zip(names, rows) if row["code"].strip()}
    static = check_programs(codes)
    runnable = [Program(name, row["code"], suites[row["instruction_id"]], references.get(row["instruction_id"]))
                for name, row in zip(names, rows) if name in codes and static[name].status != "syntax"]
    ran = {verdict.id: verdict for verdict in sandbox.run(runnable, ended=ended)}
    ours = [verdict for verdict in ran.values() if verdict.status == "infrastructure"]
    if ours:  # before the shard is written, so that the same command judges it again
        raise RuntimeError(f"the sandbox failed on {len(ours)} programs, the first {ours[0].id}: {ours[0].detail}. "
                           "Nothing is labelled by a guess; run the stage again")
    return [_verdict_row(p, row, static.get(name), ran.get(name)) for name, row in zip(names, rows)]


def _verdict_row(p: Params, row: dict[str, Any], static: Any, ran: Any) -> dict[str, Any]:
    if static is None:
        status, detail = "no_code", "no Python code in the completion"
    elif static.status == "syntax":
        status, detail = "syntax", static.detail
    elif p.labels.mypy and static.status == "type_error" and ran.status != "passed":
        status, detail = "type_error", static.detail
    else:
        status, detail = ran.status, ran.detail
    return {"instruction_id": row["instruction_id"], "sample_index": row["sample_index"], "status": status,
            "assurance": ran.assurance if ran else None, "detail": ADDRESS.sub("0x...", detail),
            "executed": ran.status if ran else None, "mypy": static.status if static else None,
            "mypy_codes": list(static.codes) if static else []}


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
