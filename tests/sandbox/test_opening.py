"""How many programs run at a time where the parameters do not say."""

from __future__ import annotations

import pytest

from plum_utils.params import Params
from plum_utils.sandbox import opening
from plum_utils.sandbox.program import Limits


@pytest.mark.parametrize(("cores", "gib", "memory_mb", "workers"), [
    (2, 8, 512, 2), (64, 256, 512, 64), (64, 8, 512, 8), (64, 8, 4096, 1), (1, 1, 4096, 1)])
def test_one_a_core_where_half_of_the_memory_has_room(monkeypatch, cores, gib, memory_mb, workers):
    monkeypatch.setattr(opening.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(opening.os, "sysconf", {"SC_PHYS_PAGES": gib << 18, "SC_PAGE_SIZE": 4096}.get)
    assert opening.workers_here(Limits(memory_mb=memory_mb)) == workers


@pytest.mark.parametrize(("given", "opened"), [(3, 3), (None, 7)])
def test_a_number_that_is_given_is_taken(monkeypatch, given, opened):
    monkeypatch.setattr(opening, "Sandbox", lambda workers, limits, quiet: workers)
    monkeypatch.setattr(opening, "workers_here", lambda limits: 7)
    assert opening.open_sandbox(Params(name="x", sandbox={"workers": given})) == opened
