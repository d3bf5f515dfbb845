"""How good are the tests that label? Mutation scores of suites, and the share of chosen programs that are wrong.

A mutant is the reference solution with one small change; a suite is worth what it notices. The operators are named as
in Cosmic Ray, whose own need a dozen packages (a database, a web client) and mutate files on disk; mutmut needs a test
runner and writes all mutants into one file. Ours are edits of Python's own syntax tree, on source strings: nothing that
a model wrote is run here, only in the sandbox.
"""

from __future__ import annotations

import random
from typing import Any, Iterable

import pandas as pd

from plum_utils.sandbox import Program, Sandbox, Status, judge
from plum_utils.stats import bootstrap_share_interval
from plum_utils.testgen.mutation import Mutant, mutants
from plum_utils.testgen.suites import consistent_by_instruction

IDENTITY = ("source", "instruction_id", "attempt")  # of a suite


def mutation_scores(rows: list[dict[str, Any]], sandbox: Sandbox, limit_per_suite: int = 20, seed: int = 0
                    ) -> pd.DataFrame:
    """The share of its reference's mutants that each suite kills: that fail a test, do not load, or run out of time.

    Some mutants do what the original does, whatever the input, so that even a perfect suite may stay below 1.

    Args:
        rows: consistent rows of the ``testgen`` contract: instruction_id, source, attempt, solution, test_code.
        limit_per_suite: mutants of a suite, drawn with the seed where there are more.

    Returns:
        One row a suite, in order: source, instruction_id, attempt, ``mutants``, ``killed``, ``score`` (NaN where there
        is no mutant, or where the suite's own solution does not pass it) and ``survivor``, the source of its first
        mutant that lives (empty where none does).

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    made = [mutants(row["solution"], limit_per_suite, seed) for row in rows]
    programs = [Program(f"{place}/{number}", source, row["test_code"], reference=row["solution"])
                for place, (row, some) in enumerate(zip(rows, made))
                for number, source in enumerate([row["solution"], *(one.source for one in some)])]
    passed = iter(verdict.status == Status.PASSED for verdict in judge(sandbox, programs))
    scored = [_scored(row, some, [next(passed) for _ in range(1 + len(some))]) for row, some in zip(rows, made)]
    return pd.DataFrame(scored, columns=[*IDENTITY, "mutants", "killed", "score", "survivor"])


def _scored(row: dict[str, Any], some: list[Mutant], passed: list[bool]) -> dict[str, Any]:
    itself, *lived = passed
    killed = lived.count(False)
    return {key: row[key] for key in IDENTITY} | {
        "mutants": len(some), "killed": killed, "score": killed / len(some) if some and itself else float("nan"),
        "survivor": next((one.source for one, lives in zip(some, lived) if lives), "")}


def draw_instructions(instruction_ids: Iterable[str], limit: int, seed: int = 0) -> set[str]:
    """Instructions in an order drawn with the seed, as many as have at most ``limit`` samples together; at least one.

    Args:
        instruction_ids: of each sample, so that an instruction is there as often as it has samples.
    """
    sizes = pd.Series(list(instruction_ids), dtype=object).value_counts().sort_index()
    order = list(sizes.index)
    random.Random(seed).shuffle(order)
    return set(order[:max(1, int((sizes[order].cumsum() <= limit).sum()))])


def suite_verdicts(samples: Iterable[dict[str, Any]], suites: Iterable[dict[str, Any]], sandbox: Sandbox
                   ) -> pd.DataFrame:
    """Each sample against each consistent suite of its instruction by itself, not all together as labels are made.

    Args:
        samples: rows with instruction_id, sample_index and code.
        suites: rows of the ``testgen`` contract.

    Returns:
        One row a sample and suite: instruction_id, sample_index, ``attempt`` (the suite's) and ``passed``. Samples
        without a consistent suite are left out.

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = consistent_by_instruction(suites)
    pairs = [(sample, suite) for sample in samples for suite in by_id.get(sample["instruction_id"], [])]
    programs = [Program(f"{suite['instruction_id']}/{sample['sample_index']}/{suite['attempt']}", sample["code"],
                        suite["test_code"], reference=suite["solution"]) for sample, suite in pairs]
    rows = [(sample["instruction_id"], sample["sample_index"], suite["attempt"], verdict.status == Status.PASSED)
            for (sample, suite), verdict in zip(pairs, judge(sandbox, programs))]
    return pd.DataFrame(rows, columns=["instruction_id", "sample_index", "attempt", "passed"])


def false_positives(verdicts: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Leave the others out: of the samples that one suite alone would have chosen, the share that fail another suite of
    their instruction. Instructions with a single suite have nothing to check with and are left out.

    Args:
        verdicts: of ``suite_verdicts``.

    Returns:
        A row for each suite (``suite``: its attempt, as text) and one, ``any``, for all together: ``instructions``
        (with a chosen sample), ``chosen`` (pairs of sample and suite), ``wrong``, and in percent ``rate``, ``low`` and
        ``high``: a 95% bootstrap interval over instructions.
    """
    by_sample = verdicts.groupby(["instruction_id", "sample_index"]).passed
    marked = verdicts.assign(wrong=~by_sample.transform("all"))
    chosen = marked[(by_sample.transform("size") > 1) & marked.passed.astype(bool)]
    parts = [("any", chosen), *((str(name), part) for name, part in chosen.groupby("attempt"))]
    return pd.DataFrame([{"suite": name} | _wrong_share(part, n_resamples, seed) for name, part in parts])


def _wrong_share(chosen: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, float]:
    counts = chosen.astype({"wrong": float}).groupby("instruction_id").wrong.agg(["sum", "size"])
    n, wrong = len(chosen), int(counts["sum"].sum())
    low, high = bootstrap_share_interval(counts["sum"], counts["size"], n_resamples, seed)
    return {"instructions": len(counts), "chosen": n, "wrong": wrong, "rate": 100 * wrong / n if n else float("nan"),
            "low": 100 * low, "high": 100 * high}
