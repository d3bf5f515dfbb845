"""What the paper's text claims, beside what its printed numbers say; docs/paper_notes.md has the tables."""

from __future__ import annotations

import pandas as pd

from plum_utils.data.paper import BENCHMARKS, DIFFICULTIES, changes, frame_of, keys_of, table

AVERAGES = {"Avg. (Base)": ("MBPP", "HE"), "Avg. (+)": ("MBPP+", "HE+"), "Avg. (All)": BENCHMARKS}
EXCHANGED = {"MBPP": "HE", "HE": "MBPP", "MBPP+": "HE+", "HE+": "MBPP+"}
Claim = tuple[str, str, bool | None, str]  # a row of ``claims``


def settings() -> pd.DataFrame:
    """Whether each model of Tables 2 and 3 had the instructions in its SFT data already, as far as the paper says it.

    Returns:
        Columns ``data``, ``model``, ``setting`` (``same``: SFT on the same instructions; ``unseen``: SFT on others;
        ``none``: a base model without SFT; ``unknown``) and ``said``: where the paper says so, empty where it does not.
    """
    return frame_of("settings")


def sizes() -> pd.DataFrame:
    """The text's numbers of the preference data (section 4): columns data, instructions, responses and samples (of each
    instruction), and examples, the sum that it prints."""
    return frame_of("sizes")


def relative_gains(number: int) -> pd.DataFrame:
    """Recomputed ``Rel. +`` of Tables 2 to 4: ``100 * (PLUM - Baseline) / Baseline``, one row a model."""
    both = _changes(number, "Baseline", "PLUM")
    gains = (100 * (both.after - both.before) / both.before).where(both.before != 0)
    keys = keys_of(both)
    wide = both.assign(gain=gains).pivot(index=keys, columns="column", values="gain")
    return wide.loc[list(both.groupby(keys, sort=False).groups)].reset_index()


def averages(number: int) -> pd.DataFrame:
    """Averages of Table 5 or 6, printed and recomputed as the mean of the row's scores.

    Returns:
        One row a model and method: columns ``model``, ``row``, and for each of ``AVERAGES`` its name (as printed) and
        its name with ``, recomputed``; percent.

    Raises:
        ValueError: another table, which prints no averages.
    """
    if number not in (5, 6):
        raise ValueError(f"Table {number} prints no averages; expected 5 or 6")
    frame = table(number)
    for column, parts in AVERAGES.items():
        frame[f"{column}, recomputed"] = frame[list(parts)].mean(axis=1).round(4)
    shown = [name for column in AVERAGES for name in (column, f"{column}, recomputed")]
    return frame[["model", "row", *shown]]


def inconsistencies(tolerance: float = 0.15) -> pd.DataFrame:
    """Printed averages and relative gains that do not follow from the printed scores.

    Args:
        tolerance: points by which a printed value may miss the recomputed one (averages and gains carry one digit).

    Returns:
        Columns ``table``, ``model``, ``row``, ``column``, ``printed``, ``recomputed``, ``difference`` and ``fits``:
        what the printed value does agree with, tried on the numbers and empty when nothing fits.
    """
    found = [*_average_rows(), *_gain_rows()]
    frame = pd.DataFrame(found, columns=["table", "model", "row", "column", "printed", "recomputed", "others"])
    frame["difference"] = frame.printed - frame.recomputed
    wrong = frame.recomputed.isna() | (frame.difference.abs() > tolerance)
    frame = frame[wrong].round(2).reset_index(drop=True)
    frame["fits"] = [_fit(row.printed, row.others, tolerance) for row in frame.itertuples()]
    return frame.drop(columns="others")


def _fit(printed: float, others: dict[str, tuple[float, float]], tolerance: float) -> str:
    """Name of the first range, widened by the tolerance, that holds the printed value."""
    return next((name for name, (low, high) in others.items() if low - tolerance <= printed <= high + tolerance), "")


def _average_rows() -> list[tuple]:
    rows = []
    for number in (5, 6):
        for row, score in zip(averages(number).to_dict("records"), table(number)["MBPP+"]):
            slip = (score + row["Avg. (Base)"]) / 2
            for column in AVERAGES:
                others = {"mean of MBPP+ and Avg. (Base)": (slip, slip)} if column == "Avg. (+)" else {}
                mean = row[f"{column}, recomputed"]
                rows.append((number, row["model"], row["row"], column, row[column], mean, others))
    return rows


def _gain_rows() -> list[tuple]:
    rows = []
    for number in (2, 3, 4):
        printed = table(number)
        exact = relative_gains(number).to_dict("records")
        for ours, (_, group) in zip(exact, printed.groupby(keys_of(printed), sort=False)):
            by_row = group.set_index("row")
            for column in DIFFICULTIES if number == 4 else BENCHMARKS:
                others = {"gain of rounded scores": _rounding(by_row, column)}
                if column in EXCHANGED:
                    others |= {f"gain of {EXCHANGED[column]}": (ours[EXCHANGED[column]],) * 2}
                theirs = by_row.at["Rel. +", column]
                rows.append((number, by_row.at["Rel. +", "model"], "Rel. +", column, theirs, ours[column], others))
    return rows


def _rounding(by_row: pd.DataFrame, column: str) -> tuple[float, float]:
    """Smallest and largest gain of unrounded scores that would be printed as these (a digit: within 0.05)."""
    before, after = by_row.at["Baseline", column], by_row.at["PLUM", column]
    if before <= 0.05:
        return float("nan"), float("nan")  # any gain, or none
    ends = [100 * (after + sign * 0.05 - before + sign * 0.05) / (before - sign * 0.05) for sign in (-1, 1)]
    return ends[0], ends[1]


def inconsistencies_markdown() -> str:
    """``inconsistencies`` as the Markdown table of docs/paper_notes.md."""
    frame = inconsistencies().astype(object)
    return frame.where(frame.notna(), "undefined").to_markdown(index=False)


def claims() -> pd.DataFrame:
    """Statements of the paper's text that its printed numbers bear on, each held against them.

    Returns:
        Columns ``claim`` (in our words), ``section``, ``holds`` (``None`` where the paper prints no numbers) and
        ``evidence``, computed from the tables. "Consistently" and "across the board" are taken at their word: one
        score that does not rise is enough to fail them. Averages are the recomputed ones.
    """
    found = [*_claims_of_gains(), _claim_of_chat_gain(), *_claims_of_contests(), *_claims_of_methods(),
             *_claims_of_sizes(), _claim_of_repeats(),
             ("Un-runnable programs as negatives are worse than PLUM in most cases, and may hurt", "4.3, Figure 3",
              None, "Figure 3 shows bars and prints no numbers")]
    return pd.DataFrame(found, columns=["claim", "section", "holds", "evidence"]).astype({"holds": object})


def claims_markdown() -> str:
    """``claims`` as a Markdown table."""
    words = {True: "yes", False: "no", None: "not printed"}
    return claims().assign(holds=lambda frame: frame.holds.map(words.get)).to_markdown(index=False)


def _changes(number: int, before: str, after: str) -> pd.DataFrame:
    """Each score of a table under two of its rows: columns data (where there is one), model, column, before, after."""
    return changes(table(number), before, after).rename(columns={"metric": "column"})


def _counted(changes: pd.DataFrame, verbs: tuple[str, str] = ("rise", "fall")) -> str:
    """How many scores go up, stay and go down; those that do not go up are named, up to four."""
    up, down = int((changes.after > changes.before).sum()), int((changes.after < changes.before).sum())
    rest = changes[changes.after <= changes.before]
    named = "; ".join(f"{row.model} {row.column} {row.before} to {row.after}" for row in rest.head(4).itertuples())
    text = f"{up} of {len(changes)} scores {verbs[0]}, {len(changes) - up - down} equal, {down} {verbs[1]}"
    return f"{text} ({named}{'; ...' if len(rest) > 4 else ''})" if named else text


def _claims_of_gains() -> list[Claim]:
    both = pd.concat([_changes(number, "Baseline", "PLUM") for number in (2, 3)])
    known = both.merge(settings(), on=["data", "model"])
    met = known.groupby("setting").size()
    shares = ", ".join(f"{name} {int((part.after > part.before).sum())} of {len(part)}"
                       for name, part in known.groupby("setting"))
    styles = _changes(3, "Baseline", "PLUM")
    return [("PLUM improves every model consistently, in all three settings", "4.1, Tables 2 and 3",
             {"same", "unseen", "none"} <= set(met.index) and bool((both.after > both.before).all()),
             f"{_counted(both)}; by setting: {shares}"),
            ("PLUM helps on other instruction distributions too", "Table 3", bool((styles.after > styles.before).all()),
             _counted(styles))]


def _claim_of_chat_gain() -> Claim:
    means = {data: group[list(BENCHMARKS)].mean(axis=1).item() for number in (2, 3)
             for data, group in relative_gains(number).query("model == 'Code-Qwen-7B-Chat'").groupby("data")}
    evidence = ", ".join(f"{data} {mean:.2f}%" for data, mean in means.items())
    return ("PLUM improves CodeQwen-7B-Chat by 3% (relative) on average, on OSS-Instruct and on ShareGPT",
            "4.1, Tables 2 and 3", all(round(mean) == 3 for mean in means.values()),
            f"mean of the four recomputed gains: {evidence}")


def _claims_of_contests() -> list[Claim]:
    points = _changes(4, "Baseline", "PLUM").assign(gain=lambda frame: frame.after - frame.before)
    overall, levels = points[points.column == "Overall"], points[points.column != "Overall"]
    mean = levels.groupby("column", sort=False).gain.mean()
    most = levels.loc[levels.groupby("model").gain.idxmax()]
    largest = int((most.column == "Medium").sum())
    return [("On LiveCodeBench every model improves overall", "4.1, Table 4", bool((overall.gain > 0).all()),
             f"Overall: {_counted(overall)}; by difficulty: {_counted(levels)}"),
            ("PLUM helps most at medium difficulty", "4.1, Table 4", mean.idxmax() == "Medium",
             "mean gain in points: " + ", ".join(f"{name} {gain:+.2f}" for name, gain in mean.items())
             + f"; largest at Medium for {largest} of {len(most)} models")]


def _claims_of_methods() -> list[Claim]:
    harmed = _changes(6, "Baseline", "DPO")
    falls = harmed[harmed.after < harmed.before]
    return [_better(6, "DPO", "KTO", "KTO is better than DPO", "3 and 4.2, Table 6"),
            ("DPO can harm models that have undergone SFT", "4.2, Table 6", bool(len(falls)), _counted(harmed)),
            _better(5, "SFT", "PLUM-KTO", "For base models PLUM-KTO is better than SFT on the correct solutions",
                    "4.2, Table 5")]


def _better(number: int, one: str, two: str, claim: str, section: str) -> Claim:
    """A method against another by the recomputed average of all four scores; single scores are told."""
    means = averages(number).pivot(index="model", columns="row", values="Avg. (All), recomputed")
    evidence = ", ".join(f"{name} {row[one]:.1f} to {row[two]:.1f}" for name, row in means.iterrows())
    return (claim, section, bool((means[two] > means[one]).all()),
            f"Avg. (All), recomputed: {evidence}; {_counted(_changes(number, one, two), ('higher', 'lower'))}")


def _claims_of_sizes() -> list[Claim]:
    rows = sizes().assign(sampled=lambda frame: frame.instructions * frame.samples)
    counts = "; ".join(f"{row.data} {row.instructions:,} x {row.samples} = {row.sampled:,} samples, "
                       f"x {row.responses} responses = {row.sampled * row.responses:,}" for row in rows.itertuples())
    printed = " and ".join(f"{value:,}" for value in rows.examples.drop_duplicates())
    ks = ", ".join(f"{row.data} {row.samples}" for row in rows.itertuples())
    return [(f"Before filtering there are about {printed} examples", "4, Preference Data Collection",
             bool((rows.sampled == rows.examples).all()),
             f"{counts}: the printed sums count a sample once for each response"),
            ("Evol-Instruct gets as many initial samples as the other sets", "4.1", rows.sampled.nunique() == 1,
             ", ".join(f"{row.data} {row.sampled:,}" for row in rows.itertuples())),
            ("K is 20", "3", bool((rows.samples == 20).all()), f"section 4: {ks}")]


def _claim_of_repeats() -> Claim:
    """Rows of Tables 3, 5 and 6 that repeat Table 2's: the baselines, and KTO on OSS-Instruct."""
    names = frame_of("names").set_index("printed").model
    known = table(2).set_index(["model", "row"])[list(BENCHMARKS)]
    repeated = {"Baseline": "Baseline", "KTO": "PLUM", "PLUM-KTO": "PLUM"}
    pairs = []
    for number in (3, 5, 6):
        for row in table(number).to_dict("records"):
            key = (names.get(row["model"], row["model"]), repeated.get(row["row"]))
            if key in known.index:
                pairs.append(all(row[column] == known.at[key, column] for column in BENCHMARKS))
    return ("Rows that stand in several tables are the same in each", "Tables 2, 3, 5 and 6", all(pairs),
            f"{sum(pairs)} of {len(pairs)} repeated rows agree with Table 2")
