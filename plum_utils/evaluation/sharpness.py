"""Did it learn, or only sharpen? The entropy of a policy on its own answers, and pass@1 at equal entropy.

The entropy of an answer (all its tokens together) is by the chain rule the expected sum of the entropies of its next
tokens, each given those before it. So that sum over an answer which the policy drew is an unbiased estimate of it, and the
mean over the answer's tokens one of the entropy per token; both are averaged over problems. (The log-probability of what
was drawn would estimate the same with more noise.)
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plum_utils.evaluation.tables import direction
from plum_utils.models.adapters import Policy, adapter_digest
from plum_utils.params import Decoding, Params
from plum_utils.progress import Bar
from plum_utils.runs import fingerprint, make_shards, shard_rows
from plum_utils.stats import bootstrap_mean_interval, compare
from plum_utils.syntax import normalise

if TYPE_CHECKING:
    from plum_utils.models.transformers_engine import TransformersBackend

PROBLEMS = 100  # of a suite whose first sample is read: seconds a policy and temperature on a laptop, not minutes
MEASURES = ["entropy_per_token", "entropy_per_answer"]
KEY = ["suite", "temperature", "policy", "task_id"]
Job = tuple[Policy, str, Decoding]
Curve = tuple[pd.DataFrame, pd.DataFrame]  # pass rates (problems, temperatures); the policy's rows of sharpness_table
SHARPNESS = ["suite", "temperature", "policy", *MEASURES, "tokens", "distinct", "pass_at_1",
             *(f"{name}_change{end}" for name in (*MEASURES, "tokens") for end in ("", "_low", "_high"))]
EQUAL = ["measure", "before_least", "before_greatest", "after_least", "after_greatest", "entropy", "problems", "before",
         "after", "difference", "difference_low", "difference_high", "wins", "losses", "p_permutation"]


def measure_entropies(p: Params, model_path: str, solutions: dict[Job, list[dict[str, Any]]], folder: Path
                      ) -> pd.DataFrame:
    """The entropy of every sampled policy on its own answers: the first sample of the first ``PROBLEMS`` problems of each
    suite and temperature, read by the policy that drew it, at that temperature, kept by shard. The model is loaded if a
    shard is missing.

    Args:
        solutions: rows of ``generate_solutions`` by policy, suite's name and decoding; greedy ones are passed over.
        folder: of the shards.

    Returns:
        A row an answer: suite, temperature, policy, task_id, entropy_per_token, entropy_per_answer (nats; softmax over the
        whole vocabulary, in float32), tokens_read. Nothing, where nothing was sampled.
    """
    @cache
    def model() -> TransformersBackend:
        from plum_utils.models.transformers_engine import TransformersBackend  # torch, which the tables do without

        return TransformersBackend(model_path, p.policy.dtype)

    def first(job: Job) -> list[dict[str, Any]]:
        return [row for row in solutions[job] if row["sample_index"] == 0][:PROBLEMS]

    def make(job: Job) -> list[dict[str, Any]]:
        (policy, suite, decoding), rows = job, first(job)
        answers = [row["completion"] + row["end"] for row in rows]
        read = model().entropies([row["prompt"] for row in rows], answers, decoding.temperature,
                                 str(policy.adapter) if policy.adapter else None)
        return [{"suite": suite, "temperature": decoding.temperature, "policy": policy.name, "task_id": row["task_id"],
                 "entropy_per_token": sum(each) / max(1, len(each)), "entropy_per_answer": sum(each),
                 "tokens_read": len(each)} for row, each in zip(rows, read)]

    def mark(job: Job) -> str:
        asked = [[row[name] for name in ("task_id", "prompt", "completion", "end")] for row in first(job)]
        return fingerprint([p.policy.model_dump(), adapter_digest(job[0].adapter), job[2].temperature, asked])

    jobs = [job for job in solutions if job[2].temperature]
    bar = Bar("entropies", len(jobs), items=sum(len(first(job)) for job in jobs), item="answer")
    paths = make_shards(folder, ((f"{name}-{decoding.label}-{policy.name}", (policy, name, decoding))
                                 for policy, name, decoding in jobs), make, mark, bar)
    if model.cache_info().currsize:
        model().close()
    rows = pd.DataFrame(shard_rows(paths), columns=[*KEY, *MEASURES, "tokens_read"])
    return rows.astype(dict.fromkeys(["temperature", *MEASURES], float))


def sharpness_table(scored: pd.DataFrame, entropies: pd.DataFrame, n_resamples: int = 2000, seed: int = 0
                    ) -> pd.DataFrame:
    """How sharp baseline and PLUM (averaged over seeds) are at each temperature, where entropies were measured.

    Args:
        scored: of ``long_form``.
        entropies: of ``measure_entropies``.

    Returns:
        One row a suite, temperature and policy, means over problems: the two ``MEASURES`` (nats), ``tokens`` of an answer,
        ``distinct`` (share of a problem's samples whose programs differ, compared as stage 3 compares duplicates) and
        ``pass_at_1``, both in percent; in PLUM's rows also the change of the first three from the baseline, with its 95%
        interval over problems (``tokens_change``, ``tokens_change_low``, ``tokens_change_high``).
    """
    rows: list[dict[str, Any]] = []
    if entropies.empty:
        return pd.DataFrame(columns=SHARPNESS)
    for (suite, temperature), group in _by_problem(scored, entropies).groupby(level=[0, 1], sort=False):
        sides = {policy: part.droplevel([0, 1, 2]) for policy, part in group.groupby(level=2, sort=False)}
        for policy, part in sides.items():
            row = {"suite": suite, "temperature": temperature, "policy": policy} | part.mean().to_dict()
            for name in (*MEASURES, "tokens") if policy != "baseline" else ():
                change = (part[name] - sides["baseline"][name]).dropna()
                low, high = bootstrap_mean_interval(change, n_resamples, seed)
                row |= {f"{name}_change": change.mean(), f"{name}_change_low": low, f"{name}_change_high": high}
            rows.append(row)
    return pd.DataFrame(rows, columns=SHARPNESS)


def _by_problem(scored: pd.DataFrame, entropies: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``sharpness_table`` for each suite, temperature, policy and task_id, samples and seeds averaged; NaN
    for the entropies of problems of which no answer was read."""
    drawn = scored[scored.suite.isin(entropies.suite.unique()) & (scored.temperature > 0)]
    drawn = drawn.assign(program=drawn.solution.map(normalise), passed=100.0 * drawn.passed)
    own = drawn.groupby(KEY, sort=False).agg(
        tokens=("n_tokens", "mean"), distinct=("program", lambda programs: 100 * programs.nunique() / len(programs)),
        pass_at_1=("passed", "mean"))
    table = entropies.groupby(KEY)[MEASURES].mean().join(own, how="right").reset_index()
    return table.assign(policy=_side(table.policy)).groupby(KEY, sort=False).mean()


def _side(policy: pd.Series) -> pd.Series:
    return policy.where(policy == "baseline", "PLUM")


def describe_entropy(row: Any) -> str:
    """What one of PLUM's rows of ``sharpness_table`` says, whichever way it points."""
    way = {"better": "less sharp than", "worse": "sharper than"}.get(
        direction(row.entropy_per_token_change_low, row.entropy_per_token_change_high), "about as sharp as")
    told = []
    for name, unit in (("entropy_per_token", "nats a token"), ("entropy_per_answer", "nats an answer"),
                       ("tokens", "tokens an answer")):
        value, change, low, high = (getattr(row, name + end) for end in ("", "_change", "_change_low", "_change_high"))
        told.append(f"{value - change:.2f} to {value:.2f} {unit} ({change:+.2f}, {low:+.2f} to {high:+.2f})")
    return f"{row.suite}, T={row.temperature:g}: PLUM is {way} the baseline: {', '.join(told)}."


def curves(scored: pd.DataFrame, table: pd.DataFrame) -> dict[tuple[str, str], Curve]:
    """By suite and policy (``baseline`` or ``PLUM``) what ``equal_entropy`` compares.

    Args:
        scored: of ``long_form``.
        table: of ``sharpness_table``.
    """
    rates = scored.assign(policy=_side(scored.policy), passed=scored.passed.astype(float)).pivot_table(
        "passed", ["suite", "policy", "task_id"], "temperature")
    return {(suite, policy): (rates.loc[suite, policy][rows.temperature], rows.set_index("temperature"))
            for (suite, policy), rows in table.groupby(["suite", "policy"], sort=False)}


def equal_entropy(first: Curve, second: Curve, n_resamples: int = 2000, seed: int = 0) -> list[dict[str, Any]]:
    """pass@1 of two policies at the same entropy, the middle of the range that both reach at the temperatures that they
    were sampled at: what is left of a difference when neither is sharper. A row for each of the ``MEASURES``.

    Between two temperatures each problem's pass rate is interpolated linearly in the mean entropy. Those means are taken
    as they were measured: the interval is over the problems' rates alone.

    Returns:
        Rows of ``EQUAL``: the measure, the least and greatest mean entropy of either policy (nats), the entropy at which
        they are compared, and what ``stats.compare`` gives (second minus first; percent, points). Where the two ranges
        share no more than a point (with one temperature always), ``entropy`` and the comparison are NaN.
    """
    rows = []
    for measure in MEASURES:
        one, two = first[1][measure], second[1][measure]
        low, high = max(one.min(), two.min()), min(one.max(), two.max())
        row = {"measure": measure, "before_least": one.min(), "before_greatest": one.max(), "after_least": two.min(),
               "after_greatest": two.max(), "entropy": (low + high) / 2 if low < high else float("nan")}
        if low < high:
            before, after = _rates_at(row["entropy"], first[0], one), _rates_at(row["entropy"], second[0], two)
            row |= compare(before, after, n_resamples, seed)
        rows.append({name: row.get(name, float("nan")) for name in EQUAL})
    return rows


def _rates_at(place: float, rates: pd.DataFrame, entropy: pd.Series) -> pd.Series:
    """Each problem's rate at an entropy within the curve's range."""
    known = entropy.sort_values()
    return rates[known.index].apply(lambda row: np.interp(place, known, row), axis=1)


def equal_entropy_table(scored: pd.DataFrame, table: pd.DataFrame, n_resamples: int = 2000, seed: int = 0
                        ) -> pd.DataFrame:
    """Baseline and PLUM at equal entropy: suite, and the columns of ``equal_entropy``; arguments as of ``curves``."""
    found = curves(scored, table)
    return pd.DataFrame([{"suite": suite} | row for suite in table.suite.unique()
                         for row in equal_entropy(found[suite, "baseline"], found[suite, "PLUM"], n_resamples, seed)],
                        columns=["suite", *EQUAL])


def describe_equal_entropy(row: Any) -> str:
    """What one row of ``equal_entropy_table`` says, whichever way it points."""
    unit = "nats a token" if row.measure == "entropy_per_token" else "nats an answer"
    if np.isnan(row.entropy):
        return (f"{row.suite}: the policies share no range of {unit} (baseline {row.before_least:.2f} to "
                f"{row.before_greatest:.2f}, PLUM {row.after_least:.2f} to {row.after_greatest:.2f}), so that nothing can "
                "be said at equal entropy: sample at more temperatures (evaluation.suites[].temperatures).")
    way = direction(row.difference_low, row.difference_high)
    meaning = {"better": "it learned more than to be sharp", "worse": "less often right at the same sharpness"}.get(
        way, f"{way}: what it gains at one temperature can be sharpness alone")
    return (f"{row.suite}: at {row.entropy:.2f} {unit} both, pass@1 {row.before:.1f}% (baseline) against {row.after:.1f}% "
            f"(PLUM), {row.difference:+.1f} points ({row.difference_low:+.1f} to {row.difference_high:+.1f}): {meaning}.")
