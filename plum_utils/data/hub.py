"""The paper's three instruction sets as the hub has them, made into Python instructions.

Each set is read by ``datasets`` from the hub, or from a local copy of its files (``data.source``), filtered to Python,
freed of duplicates and of overlaps with the benchmarks; then ``train_limit`` instructions are drawn with the run's
seed. Schemas as on the sets' pages: Magicoder-OSS-Instruct-75K (lang, raw_index, index, seed, openai_fingerprint,
problem, solution), Evol-Instruct-Code-80k-v1 (instruction, output), ShareGPT_Vicuna_unfiltered (id, conversations of
from, value). The first reading of ShareGPT's file, one JSON array of 0.7 GB, takes six times its size in memory, once:
``datasets`` keeps what it read. Everything else is read row by row.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable

from plum_utils.data.instructions import Instruction
from plum_utils.syntax import parsed

MAX_CHARACTERS = 4000  # about 1,000 tokens: leaves an answer of 1,000 in training.max_length, 2,048 in the paper's runs


class HubUnavailable(RuntimeError):
    """A hub data set that can be read neither from the hub nor from ``data.source``; the message says what to do."""


class LeftOut(ValueError):
    """A row that is not taken; the message is the reason that is counted."""


@dataclass(frozen=True)
class HubSet:
    """A data set on the hub: its id, its files there, the prefix of our ids, and a row's instruction and answer."""

    repo: str
    files: tuple[str, ...]
    prefix: str
    convert: Callable[[dict[str, Any]], tuple[str, str]]


# --- which rows are taken -------------------------------------------------------------------------------------------

# Programming languages whose mention means another language than Python, or another one beside it.
_OTHERS = re.compile(
    r"(?<![\w.])(?:java|javascript|js|typescript|node\.?js|c\+\+|cpp|c#|c sharp|csharp|f#|objective-c|golang|php|perl|"
    r"scala|kotlin|haskell|clojure|elixir|erlang|ocaml|lisp|prolog|fortran|cobol|delphi|groovy|matlab|vb\.net|"
    r"visual basic|vba|powershell|verilog|vhdl|solidity)(?![\w+#])", re.I)
# Names that are also words, letters or people count only where a language must be meant: "in Go", "a C program".
_WORDY = r"(?:C|R|Go|Swift|Rust|Ruby|Julia|Dart|Pascal|Lua|Scheme|Assembly)(?![\w+#'’-])"
_OTHERS_IN_CONTEXT = re.compile(
    rf"\b(?i:in|using|into)\s+{_WORDY}|(?m:^\s*```\s*(?i:{_WORDY})\s*$)|"
    rf"\b(?i:{_WORDY}\s+(?:program|code|language|script|compiler|snippet)(?:s|ming)?\b)")
# What Python programs work with: another language only where Python is not named.
_COMPANIONS = re.compile(
    r"\b(?:html|css|sql|mysql|postgresql|bash|shell (?:script|command)|jquery|vue(?:\.js)?|latex)\b", re.I)
_PYTHON = re.compile(r"\bpython ?[23]?\b", re.I)
_PYTHON_BLOCK = re.compile(r"^[ \t>]*```[ \t]*(?:python ?3?|py)\b", re.I | re.M)
_FENCE = re.compile(r"^[ \t]*```+([^\n`]*)$", re.M)
_WRITES_CODE = re.compile(
    r"\b(?:write|create|implement|build|develop|generate|make|give|rewrite|convert)\b|"
    r"\b(?:code|script|function|class|program)\b\s+(?:to|for|that|which)\b", re.I)
_STATEMENT = re.compile(r"^[ \t]*(?:def|class|import|from|for|while|if|with|async|try|print)\b", re.M)
_CONTINUED = re.compile(r"_[1-9]\d*$")  # of a split conversation, by FastChat's split_long_conversation: id_startindex
_HUMAN, _MODEL = ("human", "user"), ("gpt", "chatgpt", "assistant")


def asks_for_another_language(text: str) -> bool:
    """Whether an instruction names a programming language other than Python, be it beside Python (translations)."""
    if _OTHERS.search(text) or _OTHERS_IN_CONTEXT.search(text):
        return True
    return bool(_COMPANIONS.search(text)) and not _PYTHON.search(text)


def answers_in_python(text: str) -> bool:
    """Whether an answer has a block tagged as Python, or untagged code (a block, or all of it) that parses as Python.

    A line such as ``console.log("x");`` parses too, so that a statement other than an expression is asked for.
    """
    outside, *fenced = _FENCE.split(text)  # text, then (tag, block, tag of the closing fence, text) again and again
    untagged = [block for tag, block in zip(fenced[::4], fenced[1::4]) if not tag.strip()] if fenced else [outside]
    return bool(_PYTHON_BLOCK.search(text)) or any(_STATEMENT.search(code) and parsed(code) for code in untagged)


def _checked(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise LeftOut("no instruction")
    if len(text.strip()) > MAX_CHARACTERS:
        raise LeftOut(f"longer than {MAX_CHARACTERS:,} characters")
    return text.strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _from_oss(row: dict[str, Any]) -> tuple[str, str]:
    if row.get("lang") != "python":
        raise LeftOut("language is not Python")
    return _checked(row.get("problem")), _text(row.get("solution"))


def _from_evol(row: dict[str, Any]) -> tuple[str, str]:
    """Also Magicoder-Evol-Instruct-110K, whose answer is called ``response``."""
    text, answer = _checked(row.get("instruction")), _text(row.get("output") or row.get("response"))
    if asks_for_another_language(text):
        raise LeftOut("asks for another language")
    if not answers_in_python(answer):
        raise LeftOut("gold answer is not Python")
    return text, answer


def _from_sharegpt(row: dict[str, Any]) -> tuple[str, str]:
    """The first human turn that asks for Python code, and the answer to it where that is Python."""
    turns = [turn for turn in row.get("conversations") or [] if isinstance(turn, dict)]
    if not turns:
        raise LeftOut("no conversation")
    if _CONTINUED.search(_text(row.get("id"))):
        raise LeftOut("goes on from an earlier part")
    for turn, following in zip(turns, [*turns[1:], {}]):
        answer = _text(following.get("value")) if following.get("from") in _MODEL else ""
        if turn.get("from") in _HUMAN and _asks_for_python(_text(turn.get("value")), answer):
            text = _checked(turn["value"])
            if asks_for_another_language(text):
                raise LeftOut("asks for another language")
            return text, answer if answers_in_python(answer) else ""
    raise LeftOut("no turn asks for Python code")


def _asks_for_python(text: str, answer: str) -> bool:
    return bool(_PYTHON_BLOCK.search(answer) or (_PYTHON.search(text) and _WRITES_CODE.search(text)))


HUB_SETS = {
    "oss_instruct": HubSet("ise-uiuc/Magicoder-OSS-Instruct-75K", ("data-oss_instruct-decontaminated.jsonl",), "oss",
                           _from_oss),
    "evol_instruct": HubSet("nickrosh/Evol-Instruct-Code-80k-v1", ("EvolInstruct-Code-80k.json",), "evol", _from_evol),
    "sharegpt_code": HubSet("anon8231489123/ShareGPT_Vicuna_unfiltered", ("ShareGPT_V3_unfiltered_cleaned_split.json",),
                            "sharegpt", _from_sharegpt),
}


def to_instruction(name: str, row: dict[str, Any]) -> Instruction:
    """One row of a hub set; its id is a hash of the instruction, white space and case folded.

    Raises:
        LeftOut: the row is not taken.
    """
    text, answer = HUB_SETS[name].convert(row)
    folded = " ".join(text.casefold().split())
    digest = hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()
    return Instruction(f"{HUB_SETS[name].prefix}-{digest[:12]}", name, text, solution=answer)


# --- reading --------------------------------------------------------------------------------------------------------

def hub_rows(name: str, source: str | None = None, revision: str | None = None) -> Iterable[dict[str, Any]]:
    """All rows of a hub set, from the hub or from ``source``: a folder with the set's files, or one file in its format.

    Raises:
        HubUnavailable: the hub is out of reach, or the local files are missing or no JSON.
    """
    import datasets

    hub = HUB_SETS[name]
    paths = local_files(name, source)
    try:
        if paths:
            return datasets.load_dataset("json", data_files=[str(path) for path in paths], split="train")
        return datasets.load_dataset(hub.repo, data_files=list(hub.files), split="train", revision=revision)
    except Exception as error:  # the library's own errors, the network's and the file system's
        what = f"data.source {source!r}: no JSON that datasets can read" if paths else f"{hub.repo}: not loadable"
        raise HubUnavailable(f"{what} ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
                             f"{_advice(hub)}") from error


def local_files(name: str, source: str | None) -> list[Path]:
    if source is None:
        return []
    place, hub = Path(source), HUB_SETS[name]
    paths = [place] if place.is_file() else [place / file for file in hub.files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise HubUnavailable(f"data.source {source!r}: no file {missing[0]}. {_advice(hub)}")
    return paths


def _advice(hub: HubSet) -> str:
    return (f"Where a hub is reachable, unset HF_HUB_OFFLINE and data.source; else fetch {', '.join(hub.files)} of "
            f"{hub.repo} elsewhere and set data.source to its folder")
