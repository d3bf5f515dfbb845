"""The hostile suite: no wrong solution passes in split mode, nothing escapes, and the harness survives, in any mode."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hostile_suite
import pytest
from hostile_suite import FOLDER, HONEST, KINDS, TESTS, Bait, attack, programs

import plum_utils
from plum_utils.sandbox import Limits, Program, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")


def test_the_suite_is_large_and_every_program_has_a_purpose():
    found = programs()
    assert len(found) >= 150 and {name.partition("/")[0] for name in found} == set(KINDS)
    headers = [line for kind in KINDS for line in (FOLDER / f"{kind}.py").read_text().splitlines() if "# ===" in line]
    assert len(headers) == len(found)


@pytest.mark.long("seconds")
@pytest.mark.parametrize("mode, without", [("split", ()), ("split", ("namespaces",)), ("shared", ())],
                         ids=["split", "split-as-in-a-container", "shared"])
def test_no_forged_pass_and_no_escape(mode, without):
    assert attack(mode, without) == []


@pytest.mark.long("seconds")
@pytest.mark.parametrize("without", ["landlock", "mounts"])
def test_no_escape_with_one_layer_left_out(without):
    assert attack("split", (without,), ("escapes",)) == []


@pytest.mark.long("seconds")
@pytest.mark.skipif(os.geteuid() != 0, reason="runs as an ordinary user already")
@pytest.mark.parametrize("without", [(), ("namespaces",)], ids=["all-layers", "as-in-a-container"])
def test_as_an_ordinary_user(without):
    python = readable_python()
    if python is None:
        pytest.skip("no Python 3.11 or newer that an ordinary user may run")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        os.chmod(folder, 0o755)
        sandbox_alone(Path(folder))
        shutil.copytree(FOLDER, Path(folder, "hostile"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(hostile_suite.__file__, folder)
        done = subprocess.run([python, f"{folder}/hostile_suite.py", "split", *without], capture_output=True, text=True,
                              cwd=folder, user=65534, group=65534, extra_groups=[], timeout=300,
                              env={"PYTHONPATH": folder, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def sandbox_alone(folder: Path) -> None:
    """``plum_utils`` with the sandbox's room in it and nothing else."""
    source = Path(plum_utils.__file__).parent / "sandbox"
    shutil.copytree(source, folder / "plum_utils" / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "plum_utils" / "__init__.py").touch()


def test_the_sandbox_needs_the_standard_library_only(tmp_path):
    sandbox_alone(tmp_path)
    code = "from plum_utils.sandbox import *; s = Sandbox(1, quiet=True); s.close(); print('opened')"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)})
    assert done.stdout == "opened\n", done.stderr


def readable_python() -> str | None:
    """An interpreter that another user may start: our own, or the system's."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], user=65534,
                                  group=65534, extra_groups=[], capture_output=True, timeout=30)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


def test_all_at_once_beside_honest_programs(tmp_path):
    """Two workers, honest programs between the hostile ones, and bounded memory of the harness."""
    bait = Bait(tmp_path)
    mixed = []
    for number, (name, source) in enumerate(programs().items()):
        mixed.append(Program(name, bait.filled(source), TESTS, reference=HONEST))
        mixed.append(Program(f"honest/{number}", f"# {number}\n{HONEST}", TESTS, reference=HONEST))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Sandbox(workers=2, limits=Limits(seconds=2, least_seconds=0.3)) as sandbox:
        verdicts = sandbox.run(mixed)
    assert [verdict.id for verdict in verdicts] == [program.id for program in mixed]
    passed = {verdict.id for verdict in verdicts if verdict.status == "passed"}
    assert passed == {program.id for program in mixed if program.id.startswith("honest/")}
    assert {verdict.assurance for verdict in verdicts} == {"split"}, "no program can have its tests run in shared mode"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB more than before"
    assert bait.complaints() == []


def test_nothing_of_the_hostile_programs_is_left_running():
    with Sandbox(workers=1, limits=Limits(seconds=0.5)) as sandbox:
        sources = {name: source for name, source in programs().items() if "fork" in name or "thread" in name}
        bait_free = [Program(name, source.replace("@PID@", "1"), TESTS) for name, source in sources.items()]
        assert len(bait_free) >= 5 and all(verdict.status != "passed" for verdict in sandbox.run(bait_free))
        ours = set(_descendants(os.getpid()))
    assert len(ours) <= 2, "the worker and its supervisor"
    assert not set(_descendants(os.getpid())) & ours


def _descendants(pid: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found, wave = [], [pid]
    while wave:
        wave = [child for child, parent in parents.items() if parent in wave]
        found += wave
    return found
