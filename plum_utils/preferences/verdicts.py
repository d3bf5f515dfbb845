"""Stage 3: how each sample ended: static checks, then its instruction's tests in the sandbox; resumable."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from plum_utils.params import Params
from plum_utils.preferences.static_checks import NO_CODE, TYPE_ERROR, check_programs
from plum_utils.progress import Bar
from plum_utils.runs import fingerprint, make_shards, shard_rows
from plum_utils.sandbox import Program, Sandbox, Status, judge
from plum_utils.sandbox.pool import ADDRESS

JUDGED = 1000  # samples a shard: one mypy build, and what a kill can cost


def judge_samples(p: Params, samples: Iterable[dict[str, Any]], suites: dict[str, tuple[str, ...]], sandbox: Sandbox, folder: Path,
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


def _judge(p: Params, rows: list[dict[str, Any]], suites: dict[str, tuple[str, ...]], references: dict[str, str],
           sandbox: Sandbox, ended: Callable[[int], object]) -> list[dict[str, Any]]:
    names = [f"{row['instruction_id']}/{row['sample_index']}" for row in rows]
    codes = {name: row["code"] for name, row in zip(names, rows) if row["code"].strip()}
    static = check_programs(codes)
    runnable = [Program(name, row["code"], suites[row["instruction_id"]], references.get(row["instruction_id"]))
                for name, row in zip(names, rows) if name in codes and static[name].status != Status.SYNTAX]
    ran = {verdict.id: verdict for verdict in judge(sandbox, runnable, ended=ended)}
    return [_verdict_row(p, row, static.get(name), ran.get(name)) for name, row in zip(names, rows)]


def _verdict_row(p: Params, row: dict[str, Any], static: Any, ran: Any) -> dict[str, Any]:
    if static is None:
        status, detail = NO_CODE, "no Python code in the completion"
    elif static.status == Status.SYNTAX or p.labels.mypy and static.status == TYPE_ERROR and ran.status == Status.ERROR:
        status, detail = static.status, static.detail
    else:
        status, detail = ran.status, ran.detail
    return {"instruction_id": row["instruction_id"], "sample_index": row["sample_index"], "status": status,
            "assurance": ran.assurance if ran else None, "detail": ADDRESS.sub("0x...", detail),
            "executed": ran.status if ran else None, "mypy": static.status if static else None,
            "mypy_codes": list(static.codes) if static else []}
