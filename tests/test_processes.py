"""Two processes share the tests by files."""

from __future__ import annotations

import os
from unittest.mock import Mock

import processes
import pytest


def test_a_files_tests_stay_together_and_so_do_the_timed_ones():
    """As xdist's own scheduler gives them out."""
    pytest.importorskip("xdist")
    files = ["tests/sandbox/test_a.py", "tests/test_b.py", "tests/evaluation/test_contests.py"]
    tests = [f"{file}::test_{number}[x::y]" for number in range(3) for file in files]
    config, workers = Mock(), [Mock(shutting_down=False) for _ in range(2)]
    config.getvalue.return_value = ["popen"] * 2
    scheduler = processes.pytest_xdist_make_scheduler(config, None)
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    units = [[tests[number].partition("::")[0] for number in one.args[0]]
             for worker in workers for one in worker.send_runtest_some.call_args_list]
    assert sorted(units) == [[files[0], files[2]] * 3, [files[1]] * 3]


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="no process beside this one: pytest -n 2")
def test_each_of_two_processes_computes_in_one_thread():
    import torch

    assert torch.get_num_threads() == 1
