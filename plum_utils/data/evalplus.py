"""What evalplus brings: its data, and its way to compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from plum_utils.jsonl import read_jsonl

OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}


class SuiteUnavailable(RuntimeError):
    """A suite's data is not on this machine; the message says how to bring it."""


def evalplus_path(suite: str) -> Path | None:
    """evalplus' data file: what the override variable names, else its cache; ``None`` when neither is there.

    Raises:
        SuiteUnavailable: the override variable points to no file.
    """
    override = os.environ.get(OVERRIDES[suite])
    if override:
        if not Path(override).is_file():
            raise SuiteUnavailable(f"{OVERRIDES[suite]}={override}: no such file")
        return Path(override)
    from evalplus.data.humaneval import HUMANEVAL_PLUS_VERSION
    from evalplus.data.mbpp import MBPP_PLUS_VERSION
    from evalplus.data.utils import get_dataset_metadata

    title, release = {"humaneval": ("HumanEvalPlus", HUMANEVAL_PLUS_VERSION),
                      "mbpp": ("MbppPlus", MBPP_PLUS_VERSION)}[suite]
    path = Path(get_dataset_metadata(title, release, mini=False)[1])
    return path if path.exists() else None


def evalplus_rows(suite: str) -> list[dict[str, Any]] | None:
    """evalplus' own rows; ``None`` where its data is not at hand (``evalplus_path``, also for what it raises)."""
    path = evalplus_path(suite)
    if path is None:
        return None
    rows = read_jsonl(path, required=("task_id", "base_input", "plus_input"))
    return [_deserialised(row) for row in rows] if suite == "mbpp" else rows


def _deserialised(row: dict[str, Any]) -> dict[str, Any]:
    from evalplus.data.mbpp import mbpp_deserialize_inputs

    return row | {key: mbpp_deserialize_inputs(row["task_id"], row[key]) for key in ("base_input", "plus_input")}


# Where evalplus asks only whether there is a result: a match object could not cross to the judge's process.
NOT_NONE_TASKS = ("check_str", "text_match_three", "text_starta_endb")
PRESENCE = '''

def _plum_presence(*arguments):
    found = {name}(*arguments)
    return found if isinstance(found, bool) else found is not None
'''
# evalplus' limit of each call, kept by the judge's clock: 1 s, or 4 times the reference's time (evalplus/config.py).
CLOCK = '''
import signal as _plum_signal, time as _plum_time

_plum_late = []

class _PlumLate(BaseException):  # no Exception, so that tests do not take it for the candidate's
    pass

def _plum_ring(*_):
    _plum_late.append(True)
    raise _PlumLate("out of time in one call")

_plum_signal.signal(_plum_signal.SIGALRM, _plum_ring)

def _plum_limited(function, seconds=1.0):
    def call(*arguments):
        _plum_signal.setitimer(_plum_signal.ITIMER_REAL, seconds)
        try:
            return function(*arguments)
        finally:
            _plum_signal.setitimer(_plum_signal.ITIMER_REAL, 0)
    return call
'''
# Runs in the judge's process. The comparison follows evalplus 0.3.1 (evalplus/eval/__init__.py, unsafe_execute): exact
# equality, else a tolerance for floats, else a named oracle. Parity with evalplus is tested.
EVALPLUS_JUDGE = CLOCK + '''
def _plum_transfer(result):
    """Seconds allowed for a result's way between the processes: 10 MB/s."""
    import pickle
    try:
        return len(pickle.dumps(result)) / 1e7
    except Exception:
        return 0.0

def _plum_judge(candidate, name, reference_source, inputs, atol, dataset, presence):
    import copy, math
    inf, nan = float("inf"), float("nan")
    scope = {}
    exec(reference_source, scope)
    reference = scope[name]
    set_tasks = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
                 "intersection_array", "find_dissimilar", "Diff")
    spent = 0.0

    def holds_floats(x):
        if isinstance(x, float):
            return True
        if isinstance(x, (list, tuple)) and x:
            return all(isinstance(i, float) for i in x)
        return type(x).__name__ == "ndarray" and x.dtype in ("float64", "float32")

    def pyramid_surface(base, height):
        return round(base ** 2 + 2 * base * math.sqrt((base / 2) ** 2 + height ** 2))

    def digit_distance(one, two):
        size = max(len(str(one)), len(str(two)))
        return sum(abs(int(a) - int(b)) for a, b in zip(str(one).zfill(size), str(two).zfill(size)))

    for given in inputs:
        mine, theirs = copy.deepcopy(given), copy.deepcopy(given)
        began = _plum_time.perf_counter()
        expected = reference(*mine)
        took = _plum_time.perf_counter() - began
        if presence:
            expected = expected is not None
        began = _plum_time.perf_counter()
        out = _plum_limited(candidate, max(1.0, 4 * took) + _plum_transfer(expected))(*theirs)
        spent += _plum_time.perf_counter() - began - _plum_transfer(expected)
        assert spent < 62, "out of time in all calls together"
        exact = out == expected
        if dataset == "mbpp":
            if name == "are_equivalent":
                exact = True
            elif name == "sum_div":
                exact = exact or out == 0
            elif name == "surface_Area":
                exact = exact or abs(out - pyramid_surface(*given)) <= atol
            elif name == "digit_distance_nums":
                exact = exact or out == digit_distance(*given)
            elif name in set_tasks:
                exact = set(out) == set(expected)
        elif name == "find_zero":
            assert abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol
            continue
        if atol == 0 and holds_floats(expected):
            atol = 1e-6
        if not exact and atol != 0:
            assert type(out) == type(expected)
            if isinstance(expected, (list, tuple)):
                assert len(out) == len(expected)
            import numpy
            assert numpy.allclose(out, expected, rtol=1e-07, atol=atol)
        else:
            assert exact, (given, out, expected)
    assert not _plum_late
'''


def presence_counts(suite: str, entry_point: str) -> bool:
    return suite == "mbpp" and entry_point in NOT_NONE_TASKS


def evalplus_tests(dataset: str, row: dict[str, Any], inputs: list[Any]) -> str:
    """Test source that compares the candidate with the benchmark's reference solution on the inputs."""
    reference, name = row["prompt"] + row["canonical_solution"], row["entry_point"]
    presence = presence_counts(dataset, name)
    candidate = "_plum_presence" if presence else name
    return (f"{EVALPLUS_JUDGE}\ninf, nan = float('inf'), float('nan')\n"
            f"_plum_judge({candidate}, {name!r}, {reference!r}, {inputs!r}, {row['atol']!r}, {dataset!r}, {presence})\n")
