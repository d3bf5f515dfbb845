"""Look at an instruction's samples by verdict: the program, what was seen of it, and the test that it fails.

``Gathered`` holds the rows; ``SampleBrowser`` shows them, and ``static_html`` some of them without a kernel.
Model text is hostile: all of it goes through ``clean``, is escaped, and is cut at ``MOST_TEXT``.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import Any, Hashable, Iterable, Sequence

import ipywidgets
import pandas as pd
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer, TextLexer

from plum_utils.preferences import labels
from plum_utils.sandbox.status import Status
from plum_utils.syntax import parsed

MOST_INSTRUCTIONS = 50  # in the widget: with MOST_SAMPLES and MOST_TEXT it bounds its memory, whatever the run's size
MOST_SAMPLES = 50       # of an instruction
MOST_TEXT = 3000        # characters of one text
MOST_STATIC = 5         # samples of a verdict in the static form, which is kept in the notebook
ALL = "all"
# Control characters, lone surrogates, and marks that turn the direction of text: none may reach a browser.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_WHERE = re.compile(r"\((test )?line (\d+)\)(?: \[[a-z-]+\])?$")  # as the sandbox and static_checks end a detail

# Own colours for text and ground: legible in JupyterLab's light and dark theme. <pre> and <code>: no dollar in them is
# taken for mathematics. Styles stand in the tags, for some readers of notebooks drop <style>.
_FRAME = "color:#1b1b1b;background:#fff;border:1px solid #c8c8c8;border-radius:6px;padding:8px 10px;max-width:100%;" \
         "box-sizing:border-box;font:14px/1.45 system-ui,sans-serif;overflow-wrap:anywhere"
_BOX = "color:#1b1b1b;background:#f6f6f6;margin:4px 0;padding:6px 0;border:1px solid #dcdcdc;max-width:100%;" \
       "box-sizing:border-box;overflow-x:auto;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace"
_ROW = "display:block;white-space:pre;min-width:max-content;padding:0 8px;border-left:4px solid "
_NOTE = "margin:4px 0;color:#1b1b1b"
_INLINE = "color:#1b1b1b;background:#f6f6f6;white-space:pre-wrap"


@dataclass(frozen=True)
class Sample:
    """One sample with its verdict; ``fate`` says whether it trains, and why not."""

    index: int
    code: str
    completion: str
    status: str
    label: str
    detail: str
    fate: str


@dataclass(frozen=True)
class Gathered:
    """An instruction's prompt, all its tests as one text, and its samples."""

    instruction_id: str
    prompt: str
    suite: str
    samples: tuple[Sample, ...]

    def counts(self) -> dict[str, int]:
        """Samples by verdict, the most frequent first."""
        return dict(Counter(sample.status for sample in self.samples).most_common())


def most_mixed(verdicts: pd.DataFrame, limit: int | None = None) -> list[str]:
    """Instruction ids, those with most different labels first, of equal ones those with most different verdicts, then
    those whose verdicts are most even.

    Args:
        verdicts: one row a sample with ``instruction_id`` and ``status``.
        limit: at most so many.
    """
    table = pd.crosstab(verdicts.instruction_id, verdicts.status)
    keys = pd.DataFrame({
        "labels": -(table.T.groupby(labels.LABEL_OF_STATUS).sum() > 0).sum(),
        "verdicts": -(table > 0).sum(axis="columns"),
        "unevenness": (table.div(table.sum(axis="columns"), axis="index") ** 2).sum(axis="columns").round(9)})
    return list(keys.sort_index().sort_values(list(keys), kind="stable").index[:limit])


def different(kinds: Sequence[Hashable], n: int) -> list[int]:
    """Places of ``n`` items of as many kinds as there are: the first of each kind, then the earliest of the others."""
    first = list(dict.fromkeys(kinds.index(kind) for kind in kinds))
    others = [place for place in range(len(kinds)) if place not in first]
    return sorted((first + others)[:n])


def gather(labelled: pd.DataFrame, samples: Iterable[dict[str, Any]], verdicts: Iterable[dict[str, Any]],
           suites: dict[str, tuple[str, ...]], instruction_ids: Sequence[str]) -> list[Gathered]:
    """What is shown of some instructions, in their order; both streams are read once, and only these rows are kept.

    Args:
        labelled: of ``labels.label_samples``.
        samples: those that were labelled, in the same order.
        instruction_ids: at most ``MOST_INSTRUCTIONS`` of them are taken, and ``MOST_SAMPLES`` samples of each.
    """
    ids = list(instruction_ids)[:MOST_INSTRUCTIONS]
    part = labelled[labelled.instruction_id.isin(ids)]
    part = part.assign(fate=labels.fates(part))
    part = part[part.groupby("instruction_id").cumcount() < MOST_SAMPLES]
    wanted = set(zip(part.instruction_id, part.sample_index))
    keyed = (((row["instruction_id"], row["sample_index"]), row["detail"]) for row in verdicts)
    details = {key: detail for key, detail in keyed if key in wanted}
    found: dict[str, list[Sample]] = {name: [] for name in ids}
    prompts: dict[str, str] = {}
    for row, sample in labels.pick(part, samples):
        prompts.setdefault(row.instruction_id, _cut(sample["prompt"]))
        found[row.instruction_id].append(Sample(
            row.sample_index, _cut(sample["code"]), "" if sample["code"].strip() else _cut(sample["completion"]),
            row.status, row.label, details[row.instruction_id, row.sample_index],
            "in KTO's set" if row.used else f"left out: {row.fate}"))
    return [Gathered(name, prompts[name], "\n".join(suites[name]), tuple(rows)) for name, rows in found.items() if rows]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n# ... cut after {MOST_TEXT:,} characters"


def clean(text: str) -> str:
    """Text without characters that a browser or a message to it does not bear; each becomes a replacement mark."""
    return _UNFIT.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def failing_lines(sample: Sample, suite: str) -> tuple[range, range]:
    """Line numbers (from 1) at which a sample fails: in its program, and in its tests (the whole assert)."""
    match = _WHERE.search(sample.detail)
    if not match:
        return range(0), range(0)
    line = int(match[2])
    if not match[1]:
        return range(line, line + 1), range(0)
    return range(0), _statement(suite, line) if sample.status == Status.FAILED else range(0)


def _statement(source: str, line: int) -> range:
    """The lines of the innermost statement that a line belongs to; the line alone where there is none."""
    tree = parsed(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)] if tree else []
    spans = [range(node.lineno, end + 1) for node in nodes if node.lineno <= line <= (end := node.end_lineno or 0)]
    return min(spans, key=len, default=range(line, line + 1))


def code_html(source: str, marked: Sequence[int] = (), python: bool = True) -> str:
    """Source as a box that scrolls within itself: numbered, highlighted, the ``marked`` lines with a cross."""
    lexer = (PythonLexer if python else TextLexer)(stripnl=False, ensurenl=True)
    html = highlight(clean(source).rstrip("\n"), lexer, HtmlFormatter(nowrap=True, noclasses=True, style="default"))
    lines = html.removesuffix("\n").split("\n")
    rows = [_code_row(number, line, number in marked, len(str(len(lines)))) for number, line in enumerate(lines, 1)]
    return f'<pre style="{_BOX}" tabindex="0">{"".join(rows)}</pre>'


def _code_row(number: int, line: str, marked: bool, width: int) -> str:
    colour = "#b3261e;background:#ffdcd8" if marked else "transparent"
    sign = "✗" if marked else " "
    return f'<span style="{_ROW}{colour}"><span style="color:#595959">{sign} {number:>{width}}  </span>{line}</span>'


def sample_html(sample: Sample, suite: str) -> str:
    """One sample: verdict and label, the program, the detail, and (where a test fails) the tests with it marked."""
    in_code, in_tests = failing_lines(sample, suite)
    parts = [f'<p style="{_NOTE}"><b>sample {sample.index}</b>: {escape(sample.status)} → {escape(sample.label)}, '
             f"{escape(sample.fate)}</p>"]
    if sample.code.strip():
        parts.append(code_html(sample.code, in_code))
    else:
        parts.append(f'<p style="{_NOTE}">No Python in the completion, which is:</p>')
        parts.append(code_html(sample.completion, python=False))
    if sample.detail:
        parts.append(f'<p style="{_NOTE}">Seen: <code style="{_INLINE}">{escape(clean(sample.detail))}</code></p>')
    if in_tests:
        parts.append(f'<p style="{_NOTE}">It fails here, and the tests after it were not run:</p>')
        parts.append(code_html(suite, in_tests))
    return "".join(parts)


def instruction_html(one: Gathered, most: int = MOST_SAMPLES) -> str:
    """One instruction as self-contained HTML without a script: a fold for each verdict, with at most ``most`` samples, and
    for the prompt and the tests."""
    counts = one.counts()
    head = f'<p style="{_NOTE}"><b>{escape(clean(_title(one)))}</b></p>'
    folds = [_fold("the prompt", code_html(one.prompt, python=False)), _fold("the tests", code_html(one.suite))]
    for place, (status, n) in enumerate(counts.items()):
        some = [sample for sample in one.samples if sample.status == status][:most]
        title = f"{status}: {n}" + (f", the first {len(some)} of them" if len(some) < n else "")
        folds.append(_fold(title, "<hr>".join(sample_html(sample, one.suite) for sample in some), is_open=not place))
    return f'<div style="{_FRAME}">{head}{"".join(folds)}</div>'


def static_html(one: Gathered, of: int) -> str:
    """The form for readers without a kernel: some samples of one of the ``of`` instructions that ``SampleBrowser`` has."""
    note = f'<p style="{_NOTE}">Where this notebook runs, {of} instructions can be browsed here.</p>'
    return note + instruction_html(one, MOST_STATIC)


def _fold(title: str, body: str, is_open: bool = False) -> str:
    return (f'<details{" open" if is_open else ""} style="margin:4px 0"><summary style="cursor:pointer;padding:6px 0">'
            f"<b>{escape(title)}</b></summary>{body}</details>")


class SampleBrowser(ipywidgets.VBox):
    """The live form: choose an instruction, and unfold a verdict's samples.

    Args:
        gathered: of ``gather``, at least one.
        total: number of instructions that there are, for the words about what is not here.
    """

    def __init__(self, gathered: Sequence[Gathered], total: int):
        said = ipywidgets.HTML(f"{len(gathered)} of {total:,} instructions, those with most different labels and "
                               f"verdicts; of each the first {MOST_SAMPLES} samples at most.")
        self.instruction = ipywidgets.Dropdown(options=[(_title(one), place) for place, one in enumerate(gathered)],
                                               description="instruction", layout={"width": "100%", "max_width": "720px"})
        self.pane = ipywidgets.HTML(instruction_html(gathered[0]))
        self.instruction.observe(lambda change: self.pane.set_trait("value", instruction_html(gathered[change.new])),
                                 "value")
        super().__init__([said, self.instruction, self.pane])


def _title(one: Gathered) -> str:
    return f"{clean(one.instruction_id)}: " + ", ".join(f"{n} {name}" for name, n in one.counts().items())
