"""The tables of stages 5 and 6: pass@1, pass@k, wins and losses, slices; and their sentences."""

from __future__ import annotations

from datetime import date
from typing import Any, Iterator, Mapping

import pandas as pd

from plum_utils.data.livecodebench import DIFFICULTIES, PLATFORMS
from plum_utils.stats import compare, paired_rates


def long_form(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Scored rows of all policies with one column ``passed``; plus tests become a suite of their own, ``<suite>+``."""
    frame = pd.DataFrame(rows).astype({"seed": "Int64"})
    base = frame.assign(passed=frame.base_passed.astype(bool))
    plus = frame[frame.plus_passed.notna()]
    plus = plus.assign(suite=plus.suite + "+", passed=plus.plus_passed.astype(bool))
    return pd.concat([base, plus], ignore_index=True)


def results_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """pass@1 of every trained policy against the baseline, in percent: one row a suite, decoding and training seed.

    With several seeds a further row, ``seed`` = ``mean``, compares the baseline with each problem's rate averaged over
    the seeds; ``spread`` is the standard deviation of pass@1 between seeds, in points.

    Args:
        scored: of ``long_form``; the baseline's rows have the policy ``baseline``.
    """
    rows: list[dict[str, Any]] = []
    seeds = scored.groupby("policy").seed.first()
    for suite, decoding, before, after in _pairs(scored):
        where = {"suite": suite, "decoding": decoding}
        rows += [where | {"seed": str(seeds[policy])} | compare(before, after[policy], n_resamples, seed)
                 | {"spread": float("nan")} for policy in after]
        if len(after.columns) > 1:
            rows.append(where | {"seed": "mean"} | compare(before, after.mean(axis=1), n_resamples, seed)
                        | {"spread": 100 * after.mean().std(ddof=1)})
    return pd.DataFrame(rows)


def _pairs(scored: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series, pd.DataFrame]]:
    """``paired_rates`` of each suite and decoding.

    Raises:
        ValueError: the policies were not measured on the same problems.
    """
    for (suite, decoding), group in scored.groupby(["suite", "decoding"], sort=False):
        before, after = paired_rates(group)
        if set(after.index) != set(before.index) or after.isna().any(axis=None):
            raise ValueError(f"{suite}, {decoding}: the policies were evaluated on different problems")
        yield suite, decoding, before, after.loc[before.index]


def differences(scored: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Suite, decoding, and after minus before (rates): a row a problem, a column a trained policy (training seed)."""
    for suite, decoding, before, after in _pairs(scored):
        yield suite, decoding, after.sub(before, axis=0)


def headline(results: pd.DataFrame) -> pd.DataFrame:
    """One row a suite and decoding: the mean over seeds where there are several."""
    several = (results.seed == "mean").any()
    return results[results.seed == "mean"] if several else results


def pass_at_k_table(scored: pd.DataFrame, ks: list[int], n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """pass@k of the baseline and of PLUM (averaged over seeds), for every k that the samples allow.

    Returns:
        Columns suite, temperature, k, policy (``baseline`` or ``PLUM``), value, low, high (95% interval over problems,
        percent), and for PLUM the change: difference, difference_low, difference_high (points).
    """
    rows = []
    for (suite, temperature), group in scored.groupby(["suite", "temperature"], sort=False):
        n = int(group.groupby(["policy", "task_id"]).size().min())
        for k in (k for k in sorted(set(ks) | {1}) if k <= n):
            before, after = paired_rates(group, k)
            row = compare(before, after.mean(axis=1), n_resamples, seed)
            for policy, name in (("baseline", "before"), ("PLUM", "after")):
                change = {key: row[key] for key in ("difference", "difference_low", "difference_high")}
                rows.append({"suite": suite, "temperature": temperature, "k": k, "policy": policy, "value": row[name],
                             "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
                            | (change if policy == "PLUM" else {}))
    return pd.DataFrame(rows)


def reach_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0, k: int | None = None) -> pd.DataFrame:
    """pass@k, each side at the temperature that suits it best: with all samples of a problem (no ``k``) the fair test of
    reach, with ``k`` = 1 that of accuracy, where greedy decoding is a temperature of 0.

    At one temperature a sharper policy has an edge of its own: it makes fewer slips, as if it were sampled colder. The best
    of several temperatures is chosen on the problems that it is then measured on, which flatters both sides a little.

    Returns:
        One row a sampled suite: suite, k, before_temperature, after_temperature, and all of ``stats.compare``.
    """
    rows = []
    sampled = scored[scored.temperature > 0]
    for suite, drawn in sampled.groupby("suite", sort=False):
        of = k or int(drawn.groupby(["policy", "temperature", "task_id"]).size().min())
        group = scored[scored.suite == suite] if k == 1 else drawn
        at = {temperature: paired_rates(part, of) for temperature, part in group.groupby("temperature")}
        cold, before = _best({temperature: before for temperature, (before, _) in at.items()})
        hot, after = _best({temperature: after.mean(axis=1) for temperature, (_, after) in at.items()})
        rows.append({"suite": suite, "k": of, "before_temperature": cold, "after_temperature": hot}
                    | compare(before, after, n_resamples, seed))
    return pd.DataFrame(rows)


def _best(rates: dict[float, pd.Series]) -> tuple[float, pd.Series]:
    """The temperature at which most problems are solved, and their rates."""
    return max(rates.items(), key=lambda item: item[1].mean())


def wins_losses(scored: pd.DataFrame) -> pd.DataFrame:
    """Each problem's pass rate before and after (averaged over seeds) in percent, and the change in points."""
    table = pd.DataFrame([{"suite": suite, "decoding": decoding, "task_id": task, "before": 100 * one,
                           "after": 100 * two}
                          for suite, decoding, before, after in _pairs(scored)
                          for task, one, two in zip(before.index, before, after.mean(axis=1))])
    return table.assign(change=table.after - table.before)


def describe_change(row: Any) -> str:
    """What one row of ``results_table`` says, whichever way it points."""
    p_value = "p < 0.001" if row.p_permutation < 0.001 else f"p = {row.p_permutation:.3f}"
    numbers = (f"{row.before:.1f}% to {row.after:.1f}% ({row.difference:+.1f} points, 95% interval "
               f"{row.difference_low:+.1f} to {row.difference_high:+.1f}, {p_value}; "
               f"of {row.problems} problems {row.wins} better, {row.losses} worse)")
    return f"{row.suite}, {row.decoding}: {direction(row.difference_low, row.difference_high)}: {numbers}"


def describe_reach(row: Any) -> str:
    """What one row of ``reach_table`` says, whichever way it points."""
    way = direction(row.difference_low, row.difference_high)
    meaning = {"better": "the policy got better: problems came within reach that were not",
               "worse": "problems were lost from reach"}.get(way, "no sign that more problems came within reach")
    if row.k == 1:
        meaning = {"better": "more often right", "worse": "less often right"}.get(way, way)
    return (f"{row.suite}: best pass@{row.k} {row.before:.1f}% (baseline, T={row.before_temperature:g}) against "
            f"{row.after:.1f}% (PLUM, T={row.after_temperature:g}), {row.difference:+.1f} points "
            f"({row.difference_low:+.1f} to {row.difference_high:+.1f}): {meaning}.")


def direction(low: float, high: float) -> str:
    """Better, worse, or no difference that the problems can show, from a difference's interval."""
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference beyond chance"


def describe_sharpness(table: pd.DataFrame) -> str:
    """Better or only sharper: the changes of pass@1 and of the largest k, from PLUM's rows of ``pass_at_k_table``."""
    first, last = table.loc[table.k.idxmin()], table.loc[table.k.idxmax()]
    one, many = (direction(row.difference_low, row.difference_high) for row in (first, last))
    meaning = {
        ("better", "better"): "more often right, and more problems within reach of that many draws at "
                              "this temperature",
        ("better", "no difference beyond chance"): "sharper: it finds more often what it could already "
                                                   "find, and no more problems come within reach",
        ("better", "worse"): "sharper at the price of variety: fewer problems are within its reach",
    }.get((one, many), f"pass@{first.k:g}: {one}; pass@{last.k:g}: {many}")
    return (f"pass@{first.k:g} {first.difference:+.1f} points ({first.difference_low:+.1f} to "
            f"{first.difference_high:+.1f}), pass@{last.k:g} {last.difference:+.1f} ({last.difference_low:+.1f} to "
            f"{last.difference_high:+.1f}): {meaning}.")


def slices(scored: pd.DataFrame, groups: Mapping[str, set[str]], n_resamples: int = 2000, seed: int = 0
           ) -> pd.DataFrame:
    """The trained policies (averaged over seeds, problem by problem) against the baseline on parts of each suite:
    contaminated and clean problems, say.

    Args:
        scored: rows of ``tables.long_form``: suite, decoding, policy (``baseline`` or another), task_id, passed.
        groups: name of a slice -> its task ids; slices may overlap, and ids of other suites do no harm.

    Returns:
        One row a suite, decoding and slice: ``slice`` and all of ``compare``; a slice without a problem of the suite
        has ``problems`` 0 and no other value.

    Raises:
        ValueError: the policies were not measured on the same problems.
    """
    rows = []
    for suite, decoding, before, after in _pairs(scored):
        for name, ids in groups.items():
            one, two = (side[side.index.isin(ids)] for side in (before, after.mean(axis=1)))
            rows.append({"suite": suite, "decoding": decoding, "slice": name}
                        | (compare(one, two, n_resamples, seed) if len(one) else {"problems": 0}))
    return pd.DataFrame(rows)


def difficulty_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """pass@1 in percent by difficulty and overall, before and after, with intervals over problems.

    Args:
        scored: graded rows with ``policy`` (``baseline`` or a trained one) and ``seed``; several training seeds are
            averaged problem by problem.

    Returns:
        Columns label (Easy, Medium, Hard, Overall; those with problems) and all of ``stats.compare``.
    """
    return _by_label(scored, scored.difficulty.str.capitalize(), [name.capitalize() for name in DIFFICULTIES],
                     n_resamples, seed)


def platform_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """As ``difficulty_table``, by contest site: LeetCode, AtCoder, Codeforces (those with problems), Overall."""
    return _by_label(scored, scored.platform.map(PLATFORMS), list(PLATFORMS.values()), n_resamples, seed)


def window_table(scored: pd.DataFrame, cut: date | None = None, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """As ``difficulty_table``, by the month of the contest (``2023-08``), or before a day and from it on.

    Args:
        cut: the day after a model's training data ends: what is older may have been in it. Of a policy that does better
            on the older problems only, contamination is the first suspect (LiveCodeBench's own reading of its dates).
    """
    if cut is None:
        months = scored.contest_date.str[:7]
        return _by_label(scored, months, sorted(set(months)), n_resamples, seed)
    names = [f"before {cut}", f"from {cut}"]
    newer = scored.contest_date >= cut.isoformat()
    return _by_label(scored, newer.map({False: names[0], True: names[1]}), names, n_resamples, seed)


def _by_label(scored: pd.DataFrame, labels: pd.Series, order: list[str], n_resamples: int, seed: int) -> pd.DataFrame:
    """``stats.compare`` for the problems of each label (one for each row of ``scored``) and for all: ``Overall``."""
    before, seeds = paired_rates(scored)
    after = seeds.mean(axis=1)
    label = labels.groupby(scored.task_id).first()
    groups = {name: label.index[label == name] for name in order} | {"Overall": label.index}
    return pd.DataFrame([{"label": name} | compare(before[ids], after[ids], n_resamples, seed)
                         for name, ids in groups.items() if len(ids)])
