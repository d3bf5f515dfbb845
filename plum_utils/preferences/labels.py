"""Stage 3: verdicts -> chosen and rejected completions (paper, section 3).

The label rule. Chosen: the program passes every test of every consistent suite of its instruction. Rejected: it runs
and fails at least one. Un-runnable programs are in neither set; they are the negatives of the Figure 3 ablation.
Samplers leave the end-of-sequence token out of a completion's text; ``add_end_tokens`` puts it back where
the policy did sample one, so that training sees what was sampled, no more and no less. The table of labels holds no
texts; what needs them reads the samples once more, so that the memory needed does not follow their length.
"""

from __future__ import annotations

import random
from typing import Any, Iterable, Iterator

import pandas as pd

from plum_utils.params import LabelParams
from plum_utils.preferences.static_checks import NO_CODE, TYPE_ERROR
from plum_utils.runs import fingerprint
from plum_utils.sandbox.status import Status
from plum_utils.syntax import normalise

ENDINGS = ("end_token", "stop_string", "length")  # ``models.completions.Ending``
CHOSEN, REJECTED, UNRUNNABLE, UNDECIDED = "chosen", "rejected", "unrunnable", "undecided"
LABEL_OF_STATUS: dict[str, str] = {
    Status.PASSED: CHOSEN,
    Status.FAILED: REJECTED,
    Status.TIMEOUT: REJECTED,
    Status.MEMORY: REJECTED,
    Status.ERROR: UNRUNNABLE,
    Status.SYNTAX: UNRUNNABLE,
    TYPE_ERROR: UNRUNNABLE,
    NO_CODE: UNRUNNABLE,
    Status.INFRASTRUCTURE: UNDECIDED,
}


def add_end_tokens(samples: Iterable[dict[str, Any]], end_token: str) -> Iterator[dict[str, Any]]:
    """Samples with ``end``: the end token where the policy itself ended its answer, else an empty string.

    Elsewhere the policy never sampled the token: training on it there would teach something that it did not do.

    Raises:
        ValueError: a sample does not say how it ended.
    """
    for row in samples:
        if row["finish_reason"] not in ENDINGS:
            raise ValueError(f"sample {row['instruction_id']}/{row['sample_index']}: finish_reason is "
                             f"{row['finish_reason']!r}, expected one of {', '.join(ENDINGS)}; it was sampled by an older "
                             "version of this package: run stage 02 again")
        yield row | {"end": end_token if row["finish_reason"] == "end_token" else ""}


def selected(rows: Iterable[dict[str, Any]], labels: LabelParams, instruction_ids: Iterable[str], seed: int
             ) -> Iterator[dict[str, Any]]:
    """Samples (or verdicts) of the part that is labelled: the first ``first_k`` of each instruction, and
    ``instructions`` of the instructions, drawn with the seed; all of them, in their order, where neither is set.

    A smaller draw is a part of every larger one, so that a curve of scaling keeps its instructions as it grows.

    Args:
        instruction_ids: what to draw from; rows of other instructions are left out. Fewer than ``instructions``: all.
    """
    names = sorted(set(instruction_ids))
    random.Random(seed).shuffle(names)
    kept = set(names[:labels.instructions])
    for row in rows:
        if row["instruction_id"] in kept and (labels.first_k is None or row["sample_index"] < labels.first_k):
            yield row


def label_samples(verdicts: Iterable[dict[str, Any]], samples: Iterable[dict[str, Any]], deduplicate: bool = True
                  ) -> pd.DataFrame:
    """Join samples with their verdicts and label them.

    Returns:
        One row a sample, its index the sample's place: instruction_id, sample_index, ``status``, ``label``,
        ``duplicate`` (an earlier sample of the same instruction is the same text) and ``used`` (in the KTO set: chosen
        or rejected, not a duplicate, and its instruction has a chosen solution).

    Raises:
        ValueError: a sample without a verdict, or a verdict that is our fault and not the program's.
    """
    status_of = {(row["instruction_id"], row["sample_index"]): row["status"] for row in verdicts}
    rows, seen = [], set()
    for sample in samples:
        name, index = sample["instruction_id"], sample["sample_index"]
        if (name, index) not in status_of:
            raise ValueError(f"sample {name}/{index} has no verdict; run stage 03 again")
        status = status_of[name, index]
        if LABEL_OF_STATUS[status] == UNDECIDED:
            raise ValueError(f"sample {name}/{index}: the sandbox failed, so that nothing is known of it; run 03 again")
        text = text_key(sample)
        rows.append((name, index, status, LABEL_OF_STATUS[status], deduplicate and text in seen))
        seen.add(text)
    frame = pd.DataFrame(rows, columns=["instruction_id", "sample_index", "status", "label", "duplicate"])
    solvable = set(frame.loc[frame.label == CHOSEN, "instruction_id"])
    frame["used"] = (frame.label.isin([CHOSEN, REJECTED]) & ~frame.duplicate & frame.instruction_id.isin(solvable))
    return frame


def text_key(sample: dict[str, Any]) -> str:
    """Equal for two samples of one instruction whose completions are the same answer; the text itself is not kept."""
    return fingerprint([sample["instruction_id"], normalise(sample["completion"])])


def pick(frame: pd.DataFrame, samples: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(row of a part of the labels' table, its sample), in order; the other samples are passed over.

    Raises:
        ValueError: the samples are not those that were labelled.
    """
    rows = frame.itertuples()
    row = next(rows, None)
    for place, sample in enumerate(samples):
        if row is None:
            return
        if place == row.Index:
            if (sample["instruction_id"], sample["sample_index"]) != (row.instruction_id, row.sample_index):
                break
            yield row, sample
            row = next(rows, None)
    if row is not None:
        raise ValueError(f"sample {row.instruction_id}/{row.sample_index} is not where it was when it was labelled; "
                         "run stage 03 again")


def correctness_ratios(frame: pd.DataFrame) -> pd.Series:
    """Per instruction, the share of all its samples that pass every test (Figure 2); values in [0, 1]."""
    return (frame.label == CHOSEN).groupby(frame.instruction_id).mean()


def fates(frame: pd.DataFrame) -> pd.Series:
    """What becomes of each sample: its label where it is used, else the first rule that leaves it out."""
    left_out = frame.duplicate.map({True: "duplicate", False: "no chosen solution"})
    return frame.label.where(frame.used, left_out).mask(frame.label == UNRUNNABLE, "un-runnable")


def flow_counts(frame: pd.DataFrame) -> dict[str, int]:
    """How many samples each rule removes, from all samples to the KTO set; the parts add up to the whole."""
    counts = fates(frame).value_counts()
    return {name: int(counts.get(name, 0)) for name in ("un-runnable", "duplicate", "no chosen solution", CHOSEN, REJECTED)}
