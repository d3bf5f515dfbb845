"""What the test cells of the exercise notebooks use: one helpful message for a blank or wrong answer."""

from __future__ import annotations

import copy
import inspect
import math
import reprlib
import textwrap
import traceback
from typing import Any, Callable

import pandas as pd

_repr = reprlib.Repr()
_repr.repr_float = lambda value, level: f"{value:.7g}"  # type: ignore[attr-defined]  # float32 has no more digits
_repr.maxstring = _repr.maxother = 300
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 8
MOST = 1200  # characters of a value in a message


class NotRight(AssertionError):
    """An answer that is missing or wrong; Jupyter shows the message alone, nbgrader and papermill see an error."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class Exercise:
    """The checks of one exercise.

    Args:
        number: as in the notebook's headings.
        answer: the function that the student wrote.
    """

    def __init__(self, number: int, answer: Callable[..., Any]):
        self.number, self.answer, self.name, self.checks = number, answer, answer.__name__, 0

    def expect(self, arguments: tuple, wanted: Any, hint: str = "", tolerance: float = 1e-7) -> None:
        """The answer, called with (a copy of) the arguments, must return what is wanted.

        Tensors, arrays and frames are compared by value, lists and tuples alike, NaN with NaN.

        Args:
            tolerance: of floats, relative and absolute.

        Raises:
            NotRight: with exercise, input, what was expected, what came out, and the hint.
        """
        got = self.value(arguments, hint, wanted)
        if not same(got, wanted, tolerance):
            problem = "it returned None: is a `return` missing?" if got is None else "another result than expected."
            self.fail(problem, arguments, hint, expected=wanted, got=got)
        self.checks += 1

    def refuse(self, arguments: tuple, error: type[Exception], hint: str = "") -> None:
        """The answer must raise this error for the arguments.

        Raises:
            NotRight: it returned something, or raised another error.
        """
        wanted = _Words(f"an error, {error.__name__}")
        try:
            got = self.answer(*copy.deepcopy(arguments))
        except NotImplementedError as blank:
            self._blank(blank)
        except error:
            self.checks += 1
        except Exception as other:
            self._raised(other, arguments, hint, expected=wanted)
        else:
            self.fail("nothing was refused.", arguments, hint, expected=wanted, got=got)

    def value(self, arguments: tuple, hint: str = "", wanted: Any = None) -> Any:
        """What the answer returns for (a copy of) the arguments, to be judged with ``require``.

        Raises:
            NotRight: the answer is not written yet, or it raised an error.
        """
        try:
            return self.answer(*copy.deepcopy(arguments))
        except NotImplementedError as blank:
            self._blank(blank)
        except Exception as error:
            self._raised(error, arguments, hint, **({} if wanted is None else {"expected": wanted}))

    def require(self, condition: Any, problem: str, arguments: tuple = (), hint: str = "", **shown: Any) -> None:
        """A condition on what the answer returned; ``problem`` says what is wrong where it does not hold, and ``shown``
        are values to be shown beside the input (``expected``, ``got``).

        Raises:
            NotRight: the condition does not hold.
        """
        if not condition:
            self.fail(problem, arguments, hint, **shown)
        self.checks += 1

    def done(self) -> None:
        """Say that all checks hold; the last line of a test cell."""
        print(f"Exercise {self.number}: `{self.name}` is right ({self.checks} checks).")

    def fail(self, problem: str, arguments: tuple = (), hint: str = "", **shown: Any) -> None:
        """Raise ``NotRight`` with everything that helps."""
        lines = [f"Exercise {self.number}, `{self.name}`: {problem}"]
        values = [*_named(self.answer, arguments).items(), *shown.items()]  # an argument may be called `expected`, too
        width = max((len(name) for name, _ in values), default=0)
        lines += [_shown(name, value, width) for name, value in values]
        if hint:
            lines.append(textwrap.fill(f"Hint: {hint}", 100))
        raise NotRight("\n".join(lines)) from None

    def _blank(self, error: NotImplementedError) -> None:
        name = traceback.extract_tb(error.__traceback__)[-1].name
        which = "is not written yet" if name == self.name else "uses an earlier answer, which is not written yet"
        raise NotRight(f"Exercise {self.number} {which}: replace `raise NotImplementedError()` in `{name}`, run that "
                       "cell, then run this one again.") from None

    def _raised(self, error: Exception, arguments: tuple, hint: str, **shown: Any) -> None:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = f" in line {frames[-1].lineno} of `{frames[-1].name}`" if frames else ""
        code = frames[-1].line if frames else ""
        text = f"it stopped with {type(error).__name__}: {str(error)[:300]}"
        self.fail(f"{text}{where}{f', at `{code}`' if code else ''}.", arguments, hint, **shown)


def same(got: Any, wanted: Any, tolerance: float = 1e-7) -> bool:
    """Whether two values are equal, floats within the tolerance; tensors, arrays and frames by value."""
    got, wanted = _plain(got), _plain(wanted)
    if isinstance(wanted, dict) and isinstance(got, dict):
        return got.keys() == wanted.keys() and all(same(got[key], wanted[key], tolerance) for key in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(got) == len(wanted) and all(same(one, two, tolerance) for one, two in zip(got, wanted))
    kinds = {type(got), type(wanted)}
    if kinds == {float} or kinds == {int, float}:
        both_nan = math.isnan(got) and math.isnan(wanted)
        return both_nan or math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    return len(kinds) == 1 and bool(got == wanted)


def _plain(value: Any) -> Any:
    """A value as Python's own numbers, lists and dictionaries; frames by column, tuples as lists."""
    if isinstance(value, pd.DataFrame):
        return value.to_dict("list")
    if hasattr(value, "detach"):  # a tensor, without importing torch
        value = value.detach()
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


class _Words(str):
    """Shown as it is, without quotation marks."""


def _named(answer: Callable[..., Any], arguments: tuple) -> dict[str, Any]:
    try:
        return dict(inspect.signature(answer).bind(*arguments).arguments)
    except (TypeError, ValueError):  # the student changed the signature
        return {f"argument {place}": value for place, value in enumerate(arguments, 1)}


def _shown(name: str, value: Any, width: int) -> str:
    value = _plain(value)
    if isinstance(value, str) and "\n" in value.strip() or isinstance(value, _Words):
        text = str(value)
    else:
        text = _repr.repr(value)
    text = text if len(text) <= MOST else text[:MOST] + " ..."
    first = f"    {name:<{width}}  "
    return first + text if "\n" not in text else f"{first.rstrip()}:\n{textwrap.indent(text.rstrip(), ' ' * 8)}"
