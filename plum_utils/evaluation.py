"""Stage 5: held-out suites, HumanEval(+) and MBPP(+), judged in our sandbox."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from plum_utils.data import paper
from plum_utils.data.evalplus import OVERRIDES, PRESENCE, _presence_counts
from plum_utils.data.problems import BUNDLED, Problem
from plum_utils.models.extract import extract_code
from plum_utils.params import SuiteParams
from plum_utils.progress import Bar
from plum_utils.sandbox import Limits, Program, Sandbox, Verdict
from plum_utils.stats import compare, pass_at_k_by_problem, problem_rates

BASE_SECONDS = 62.0    # evalplus' limit of all tests together, when there are many
PLUS_SECONDS = 120.0   # twice that: the reference runs beside the candidate
MEMORY_MB = 4096       # as evalplus
MOST_LINES = 150       # evalplus' sanitizer takes time with the cube of a completion's lines: 2 s at 100, 14 s at 200


def runnable(problem: Problem, solution: str) -> str:
    """The program that is judged: the benchmark's preamble, then the solution (which may define all of it anew).

    Where only the presence of a result counts, a function follows that turns it into plain data.
    """
    adapter = PRESENCE.format(name=problem.entry_point) if _presence_counts(problem.suite, problem.entry_point) else ""
    return problem.preamble + solution + adapter


# --- the program in a completion ------------------------------------------------------------------------------------

def take_program(problem: Any, completion: str, postprocess: str = "extract", template: str = "chat") -> str:
    """The program in a completion.

    Args:
        problem: one of HumanEval or MBPP may go through evalplus; all others (which need no ``suite``) are extracted.
        postprocess: ``evaluation.postprocess``: ``extract`` (``extract.extract_code``) or ``evalplus`` (``sanitised``).
        template: the policy's prompt template (``policy.prompt``).
    """
    if postprocess == "evalplus" and getattr(problem, "suite", None) in OVERRIDES:
        return sanitised(completion, problem.entry_point, template)
    return extract_code(completion, template)


def sanitised(completion: str, entry_point: str, template: str = "chat") -> str:
    """The program that evalplus takes out of a chat model's completion, by its own ``evalplus.sanitize`` (0.3.1).

    The longest run of lines that parses; of it the imports, and the definitions that ``entry_point`` needs. As in
    evalplus' code generation, tabs become four spaces first. It only parses, with ``ast`` and tree-sitter; nothing is
    run. Texts that it cannot take (more than ``MOST_LINES`` lines, or an error of its own, for instance on a lone
    surrogate) are left to ``extract_code``.
    """
    from evalplus.sanitize import sanitize

    text = completion.replace("\t", "    ").rstrip()
    if text.count("\n") >= MOST_LINES:
        return extract_code(completion, template)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the completion's own syntax
            return sanitize(text, entry_point)
    except (ValueError, RecursionError, OverflowError):
        return extract_code(completion, template)


# --- scoring --------------------------------------------------------------------------------------------------------

def score(problems: list[Problem], solutions: list[dict[str, Any]], sandbox: Sandbox, progress: bool = True
          ) -> list[dict[str, Any]]:
    """Judge solutions; a plus suite contains the base tests, as in evalplus, so it runs only where those pass.

    Args:
        solutions: rows with ``task_id``, ``sample_index`` and ``solution``.

    Returns:
        Rows of the ``evaluation`` contract: task_id, sample_index, solution, base_passed, plus_passed (``None``
        without plus tests), status, detail, assurance (of the base tests), plus_status and plus_assurance (``None``
        where they did not run).

    Raises:
        RuntimeError: the sandbox failed on a program.
    """
    by_id = {problem.task_id: problem for problem in problems}
    bundled = all(problem.suite in BUNDLED for problem in problems)
    programs = [_program(by_id[row["task_id"]], row, by_id[row["task_id"]].base_tests) for row in solutions]
    base = _verdicts(sandbox, programs, progress, sandbox.limits if bundled else _roomy(sandbox.limits, BASE_SECONDS))
    further = [_program(by_id[row["task_id"]], row, by_id[row["task_id"]].plus_tests) for row in solutions
               if base[_name(row)].status == "passed" and by_id[row["task_id"]].plus_tests]
    plus = _verdicts(sandbox, further, progress, _roomy(sandbox.limits, PLUS_SECONDS)) if further else {}
    return [_scored(row, base[_name(row)], plus.get(_name(row)), by_id[row["task_id"]].plus_tests is not None)
            for row in solutions]


def _roomy(limits: Limits, seconds: float) -> Limits:
    """evalplus' limits of a whole program; each call has its own in the tests, so that endless ones cost a second."""
    seconds = max(seconds, limits.seconds)
    return replace(limits, seconds=seconds, least_seconds=seconds, memory_mb=max(MEMORY_MB, limits.memory_mb))


def _name(row: dict[str, Any]) -> str:
    return f"{row['task_id']}/{row['sample_index']}"


def _program(problem: Problem, row: dict[str, Any], tests: str) -> Program:
    return Program(_name(row), runnable(problem, row["solution"]), problem.preamble + tests,
                   reference=runnable(problem, problem.reference))


def _verdicts(sandbox: Sandbox, programs: list[Program], progress: bool, limits: Limits) -> dict[str, Verdict]:
    with Bar("sandbox", len(programs), "program", hidden=not progress) as bar:
        verdicts = {verdict.id: verdict for verdict in sandbox.run(programs, limits, bar.add)}
    for verdict in verdicts.values():
        if verdict.status == "infrastructure":
            raise RuntimeError(f"{verdict.id}: the sandbox failed, not the program: {verdict.detail}")
    return verdicts


def _scored(row: dict[str, Any], base: Verdict, plus: Verdict | None, has_plus: bool) -> dict[str, Any]:
    return {"task_id": row["task_id"], "sample_index": row["sample_index"], "solution": row["solution"],
            "base_passed": base.status == "passed", "status": base.status, "detail": base.detail,
            "assurance": base.assurance,
            "plus_passed": (plus is not None and plus.status == "passed") if has_plus else None,
            "plus_status": plus.status if plus else None, "plus_assurance": plus.assurance if plus else None}


def defines(code: str, name: str) -> bool:
    """Whether a program parses and defines a function or class of this name at its top level."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(getattr(node, "name", None) == name for node in tree.body)


# --- tables of stage 5 ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Decoding:
    """How solutions are drawn: ``n`` for each problem at a temperature; greedy decoding has one."""

    label: str
    n: int
    temperature: float


def decodings(suite: SuiteParams) -> list[Decoding]:
    """Greedy, then ``n`` samples at each of the suite's temperatures."""
    drawn = [Decoding(f"T={value:g}", suite.n, value) for value in suite.temperatures] if suite.n else []
    return [Decoding("greedy", 1, 0.0), *drawn]


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
    rows = []
    for (suite, decoding), group in scored.groupby(["suite", "decoding"], sort=False):
        before = problem_rates(group[group.policy == "baseline"], "passed")
        trained = group[group.policy != "baseline"]
        rates = {name: problem_rates(part, "passed") for name, part in trained.groupby("seed", sort=False)}
        for name, after in rates.items():
            rows.append({"suite": suite, "decoding": decoding, "seed": str(name)}
                        | compare(before, after, n_resamples, seed) | {"spread": float("nan")})
        if len(rates) > 1:
            means = pd.DataFrame(rates)
            rows.append({"suite": suite, "decoding": decoding, "seed": "mean"}
                        | compare(before, means.mean(axis=1), n_resamples, seed)
                        | {"spread": 100 * means.mean().std(ddof=1)})
    return pd.DataFrame(rows)


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
            rates = {name: pass_at_k_by_problem(part, k, "passed") for name, part in group.groupby("policy")}
            before = rates.pop("baseline")
            row = compare(before, pd.DataFrame(rates).mean(axis=1), n_resamples, seed)
            for policy, name in (("baseline", "before"), ("PLUM", "after")):
                change = {key: row[key] for key in ("difference", "difference_low", "difference_high")}
                rows.append({"suite": suite, "temperature": temperature, "k": k, "policy": policy, "value": row[name],
                             "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
                            | (change if policy == "PLUM" else {}))
    return pd.DataFrame(rows)


def reach_table(scored: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """pass@n with all samples of a problem, each side at the temperature that suits it best: the fair test of reach.

    At one temperature a sharper policy has an edge of its own: it makes fewer slips, as if it were sampled colder.

    Returns:
        One row a sampled suite: suite, k, before_temperature, after_temperature, and all of ``stats.compare``.
    """
    rows = []
    for suite, group in scored[scored.temperature > 0].groupby("suite", sort=False):
        k, best = int(group.groupby(["policy", "temperature", "task_id"]).size().min()), {}
        for side, part in group.groupby(group.policy == "baseline"):
            rates = {value: pd.DataFrame({name: pass_at_k_by_problem(one, k, "passed")
                                          for name, one in at.groupby("policy")}).mean(axis=1)
                     for value, at in part.groupby("temperature")}
            best[side] = max(rates.items(), key=lambda item: item[1].mean())
        rows.append({"suite": suite, "k": k, "before_temperature": best[True][0], "after_temperature": best[False][0]}
                    | compare(best[True][1], best[False][1], n_resamples, seed))
    return pd.DataFrame(rows)


def table2(results: pd.DataFrame, model: str) -> pd.DataFrame:
    """Table 2's form: this run's greedy pass@1 (our suites as further columns) above the paper's rows."""
    names = {"mbpp": "MBPP", "mbpp+": "MBPP+", "humaneval": "HE", "humaneval+": "HE+"}
    greedy = headline(results[results.decoding == "greedy"])
    ours = [{"data": "this run", "model": model, "row": label,
             **{names.get(row.suite, row.suite): getattr(row, column) for row in greedy.itertuples()}}
            for label, column in (("Baseline", "before"), ("PLUM", "after"), ("Rel. +", "relative_percent"))]
    printed = paper.table(2).drop(columns="type").assign(data="paper, OSS-Instruct")
    extra = [name for name in ours[0] if name not in printed]
    order = ["data", "model", "row", *paper.BENCHMARKS, *extra]
    return pd.concat([pd.DataFrame(ours), printed], ignore_index=True).reindex(columns=order).round(1)


def dumbbells(results: pd.DataFrame) -> pd.DataFrame:
    """Rows for ``comparisons.fig_before_after``: this run with intervals, then the paper's HE+ without."""
    ours = headline(results)
    columns = ["before", "before_low", "before_high", "after", "after_low", "after_high"]
    ours = ours[columns].assign(label=ours.suite + ", " + ours.decoding)
    printed = paper.table(2).pivot(index="model", columns="row", values="HE+")
    theirs = [{"label": f"paper: {model}, HE+", "before": row["Baseline"], "after": row["PLUM"]}
              for model, row in printed.iterrows()]
    return pd.concat([ours, pd.DataFrame(theirs)], ignore_index=True)


def wins_losses(scored: pd.DataFrame) -> pd.DataFrame:
    """Each problem's pass rate before and after (averaged over seeds) in percent, and the change in points."""
    rows = []
    for (suite, decoding), group in scored.groupby(["suite", "decoding"], sort=False):
        before = problem_rates(group[group.policy == "baseline"], "passed")
        rates = [problem_rates(part, "passed") for _, part in group[group.policy != "baseline"].groupby("seed")]
        after = pd.concat(rates, axis=1).mean(axis=1).loc[before.index]
        rows.append(pd.DataFrame({"suite": suite, "decoding": decoding, "task_id": before.index,
                                  "before": 100 * before.values, "after": 100 * after.values}))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(change=table.after - table.before)


# --- sentences from numbers -----------------------------------------------------------------------------------------

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
