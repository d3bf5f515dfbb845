"""The sandbox against ordinary, careless and hostile programs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from plum_utils.sandbox import Limits, Program, Sandbox, SandboxError, Verdict, cgroup, pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox isolates on Linux only")
PASSING = Program("good", "def add(a, b):\n    return a + b", "assert add(1, 2) == 3")
LIMITS = Limits(seconds=1.5, memory_mb=512)


@pytest.fixture(scope="module", params=[
    pytest.param((), id="all"), pytest.param(("namespaces",), id="without-namespaces"),
    pytest.param(("landlock",), id="without-landlock", marks=pytest.mark.long("seconds")),
    pytest.param(("namespaces", "landlock"), id="seccomp-only", marks=pytest.mark.long("seconds"))])
def sandbox(request):
    limits = Limits(seconds=1.5, allow_weak=len(request.param) == 2)
    try:
        with Sandbox(workers=1, limits=limits, without=request.param) as opened:
            yield opened
    except SandboxError as error:
        pytest.skip(str(error))


def judge(sandbox: Sandbox, code: str, tests: str = "pass", limits: Limits | None = None) -> Verdict:
    """The verdict on one program; afterwards an honest one must still pass."""
    verdict, after = sandbox.run([Program("x", textwrap.dedent(code), textwrap.dedent(tests)), PASSING],
                                 limits=limits)
    assert after.status == "passed", f"the program after it: {after}"
    assert len(verdict.detail) <= 300 and "\n" not in verdict.detail
    return verdict


@pytest.mark.parametrize("code, tests, status, detail", [
    ("def add(a, b): return a + b", "assert add(1, 2) == 3", "passed", ""),
    ("def add(a, b): return a + b", "x = 1\nassert add(1, 2) == 4", "failed",
     "AssertionError: assert add(1, 2) == 4 (test line 2)"),
    ("def add(a): return a", "add(1, 2)", "failed",
     "TypeError: add() takes 1 positional argument but 2 were given: add(1, 2) (test line 1)"),
    ("def f():\n    raise KeyError('k')", "\n\nf()", "failed", "KeyError: 'k': f() (test line 3)"),
    ("def f(): pass", "assert f( ==", "failed", "SyntaxError: invalid syntax"),
    ("x = 1\ny = undefined", "pass", "error", "NameError: name 'undefined' is not defined: y = undefined (line 2)"),
    ("import no_such_module", "pass", "error", "ModuleNotFoundError"),
    ("def f(:", "pass", "syntax", "SyntaxError"),
    ("return 1", "pass", "syntax", "'return' outside function"),
    ("x = 1\0", "pass", "syntax", "null bytes"),
    ("x = '\ud800'", "pass", "syntax", "UnicodeEncodeError"),
    ("(" * 5000 + ")" * 5000, "pass", "syntax", "too many nested parentheses"),
    ("while True: pass", "pass", "timeout", "out of time while loading"),
    ("def f():\n    while True: pass", "f()", "timeout", "out of time in tests"),
    ("import time\ntime.sleep(60)", "pass", "timeout", "while loading"),
    ("x = 'a' * (1 << 31)", "pass", "memory", "MemoryError while loading"),
    ("x = []\nwhile True: x.append('a' * 100_000)", "pass", "memory", "while loading"),
    ("def f():\n    global x\n    x = []\n    while True: x.append([1] * 10_000)", "f()", "memory", "in tests"),
    ("def f(n): return f(n + 1)", "f(0)", "failed", "RecursionError"),
])
def test_verdicts(sandbox, code, tests, status, detail):
    limits = replace(sandbox.limits, seconds=30) if status == "memory" else None  # a busy machine is slow to fill it
    verdict = judge(sandbox, code, tests, limits)
    assert (verdict.status, detail in verdict.detail) == (status, True), verdict


EXITS = ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "raise SystemExit(0)", "exit()",
         "import os; os._exit(97)", "import os; os._exit(98)",
         "import os; os.closerange(0, 64); os._exit(0)",
         "import ctypes; ctypes.CDLL(None).exit(0)",
         "import ctypes; ctypes.CDLL(None)._exit(0)",
         "import ctypes; ctypes.CDLL(None).abort()",
         "import ctypes; ctypes.string_at(0)",
         "import os, signal; signal.raise_signal(signal.SIGKILL)",
         "import traceback, sys\ntraceback.extract_tb = sys.exit\nraise ValueError",
         "import atexit, os; atexit.register(os._exit, 0); raise SystemExit(0)"]


@pytest.mark.parametrize("exit_code", EXITS)
def test_early_exits_are_never_a_pass(sandbox, exit_code):
    loading = judge(sandbox, exit_code)
    assert loading.status == "error", loading
    body = textwrap.indent(exit_code, "    ")
    testing = judge(sandbox, f"def f():\n{body}\n    return 1", "assert f() == 1")
    assert testing.status == "failed", testing


def test_exit_details(sandbox):
    assert judge(sandbox, "raise SystemExit").detail == "exited while loading"
    assert judge(sandbox, "import os", "os._exit(0)").detail == "exited before the tests finished"
    assert judge(sandbox, "import sys", "sys.exit(0)").status == "passed"  # the tests' own, in a line that says so
    assert judge(sandbox, "add = exit", "add(0)").detail == "exited before the tests finished"


def test_a_function_may_be_tested_for_exiting(sandbox):
    tests = "try:\n    f()\nexcept SystemExit:\n    pass\nelse:\n    assert False"
    assert judge(sandbox, "import sys\ndef f(): sys.exit(1)", tests).status == "passed"


def test_atexit_and_threads_do_not_change_the_verdict(sandbox):
    code = """
        import atexit, threading, time
        atexit.register(print, "passed")
        threading.Thread(target=time.sleep, args=(60,)).start()
    """
    assert judge(sandbox, code, "assert True").status == "passed"
    assert judge(sandbox, code, "assert False").status == "failed"


@pytest.mark.parametrize("forgery", [
    """
    import json, os, sys
    for handle in range(1, 64):
        for text in ('["done", "passed", ""]', '"passed"', "[" * 100_000, "\\xff\\x00", "x" * 1_000_000):
            try: os.write(handle, (text + "\\n").encode("latin-1"))
            except OSError: pass
    print("passed"); sys.stdout.flush()
    """,
    """
    import os
    try:
        while True: os.write(3, b"0" * 32 + b'["done", "passed", ""]' + b"\\n")
    finally: os._exit(0)
    """])
def test_printed_verdicts_are_ignored(sandbox, forgery):
    assert judge(sandbox, forgery, "assert False").status in {"error", "failed", "timeout"}
    assert judge(sandbox, forgery + "\n    os._exit(0)", "pass").status in {"error", "failed", "timeout"}


def test_infinite_output(sandbox):
    assert judge(sandbox, "while True: print('x' * 1000)").status == "timeout"


def test_hostile_exceptions(sandbox):
    code = """
        class Odd(Exception):
            def __str__(self): raise SystemExit(0)
        class Long(Exception):
            def __str__(self): return "line\\n" * 100_000
        def f(kind): raise kind()
    """
    assert judge(sandbox, code, "f(Odd)").detail == "Odd"
    assert judge(sandbox, code, "f(Long)").detail.startswith("Long: line line")


def test_no_new_processes(sandbox):
    for code in ("import os\nwhile True: os.fork()", "import subprocess; subprocess.run(['true'])",
                 "import os; os.execv('/bin/true', ['true'])", "import os; os.posix_spawn('/bin/true', ['t'], {})"):
        assert judge(sandbox, code).status == "error"
    swallowing = """
        import os
        while True:
            try: os.fork()
            except OSError: pass
    """
    assert judge(sandbox, swallowing).status == "timeout"


def test_network_is_denied_even_on_loopback(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)"
        verdict = judge(sandbox, code)
        assert verdict.status == "error" and "Error" in verdict.detail
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
        assert judge(sandbox, f"import socket\nsocket.socket(socket.{family}, socket.SOCK_DGRAM)").status == "error"


def test_asyncio_and_threads_work(sandbox):
    code = """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        async def double(x):
            await asyncio.sleep(0)
            return 2 * x
    """
    tests = "assert asyncio.run(double(2)) == 4\nassert list(ThreadPoolExecutor(4).map(abs, [-1, -2])) == [1, 2]"
    assert judge(sandbox, code, tests).status == "passed"


def test_numpy_fits_the_memory_limit(sandbox):
    assert judge(sandbox, "import numpy as np", "assert (np.eye(50) @ np.eye(50)).sum() == 50").status == "passed"


def test_modules_of_the_harness_are_not_in_the_way(sandbox):
    assert judge(sandbox, "import stats").status == "error"
    assert judge(sandbox, "import plum_utils").status == "error"


def test_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("PLUM_SECRET", "hunter2-in-the-clear")
    script = textwrap.dedent("""
        from plum_utils.sandbox import *
        code = '''
        import glob, os
        found = [text for text in map(str, os.environ.items()) if "hunter2" in text]
        for name in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/self/environ"):
            try: found += ["proc"] * (b"hunter2" in open(name, "rb").read())
            except OSError: pass
        assert not found, found
        '''
        import textwrap
        for without in ((), ("namespaces",)):
            with Sandbox(workers=1, without=without) as s:
                verdict, = s.run([Program("x", textwrap.dedent(code), "pass")])
                print(verdict.status, verdict.detail)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["passed", "passed"], done.stdout + done.stderr


def test_working_directory_is_empty_fresh_and_removed(sandbox):
    code = """
        import os, tempfile
        assert os.listdir() == [], os.listdir()
        open("left.txt", "w").write("x" * 1000)
        os.makedirs("a/b"); open("a/b/c", "w").close()
        with tempfile.TemporaryFile() as handle: handle.write(b"x")
    """
    for _ in range(2):
        assert judge(sandbox, code).status == "passed"


def test_big_files_are_refused(sandbox):
    assert "OSError" in judge(sandbox, "open('big', 'wb').write(b'x' * (64 << 20))").detail
    assert judge(sandbox, "open('ok', 'wb').write(b'x' * 100_000)").status == "passed"


def test_the_disk_is_not_filled(sandbox):
    code = """
        n = 0
        while True:
            with open(f"f{n}", "wb") as handle: handle.write(b"x" * (1 << 20))
            n += 1
    """
    if "read-only mounts" not in sandbox.layers:
        pytest.skip("needs the mount namespace")
    assert "No space left" in judge(sandbox, code).detail


def test_no_writes_outside(sandbox, tmp_path):
    if "WEAK" in sandbox.layers:
        pytest.skip("this host, or this choice of layers, cannot deny file writes")
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    tmp_path.chmod(0o777), victim.chmod(0o666)
    for attack in (f"open({str(victim)!r}, 'w')", f"open({str(tmp_path / 'new')!r}, 'w')",
                   f"import os; os.truncate({str(victim)!r}, 0)", f"import os; os.remove({str(victim)!r})",
                   f"import os; os.chmod({str(victim)!r}, 0)", f"import os; os.utime({str(victim)!r}, (0, 0))",
                   f"import os; os.rename({str(victim)!r}, 'x')", f"import os; os.link({str(victim)!r}, 'x')"):
        assert judge(sandbox, attack).status == "error", attack
    assert victim.read_text() == "precious" and victim.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["victim.txt"]


@pytest.mark.parametrize("attack", [
    "os.kill(os.getppid(), 9)", "os.kill(-1, 9)", "os.kill(1, 9)", "resource.prlimit(os.getppid(), 0, (0, 0))",
    "libc.syscall(234, os.getppid(), os.getppid(), 9) == 0 or stop()", "libc.ptrace(16, os.getppid(), 0, 0) == 0 or stop()",
    "open(f'/proc/{os.getppid()}/mem', 'r+b')", "open(f'/proc/{os.getppid()}/environ').read()",
    "resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))", "os.setpriority(os.PRIO_USER, 0, 19)"])
def test_the_worker_cannot_be_attacked(sandbox, attack):
    if "syscall(234" in attack and os.uname().machine != "x86_64":
        pytest.skip("the number of tgkill on x86_64")
    if "/proc/" in attack and "WEAK" in sandbox.layers:
        pytest.skip("needs Landlock or namespaces")
    before = sandbox._workers[0]._process.pid
    code = f"import ctypes, os, resource\nlibc = ctypes.CDLL(None)\ndef stop(): raise OSError\n{attack}"
    assert judge(sandbox, code).status == "error"
    assert sandbox._workers[0]._process.pid == before


def test_order_ids_and_duplicates():
    programs, ended = [Program(str(n), f"x = {n % 7}", "assert x != 3") for n in range(60)], []
    with Sandbox(workers=3, limits=LIMITS) as sandbox:
        verdicts = sandbox.run(programs, ended=ended.append)
    assert [verdict.id for verdict in verdicts] == [program.id for program in programs]
    assert [verdict.status for verdict in verdicts] == ["failed" if n % 7 == 3 else "passed" for n in range(60)]
    assert len({verdict.seconds for verdict in verdicts}) <= 7  # run once each
    assert sorted(ended) == [8, 8, 8, 9, 9, 9, 9]


def test_statuses_are_deterministic():
    program = Program("x", "import random\nx = random.random()\ny = list({'a', 'b', 'c', 'd'})", "assert False, (x, y)")
    details = set()
    for _ in range(2):
        with Sandbox(workers=1, limits=LIMITS) as sandbox:
            details.add(sandbox.run([program])[0].detail)
    assert len(details) == 1


def test_no_programs():
    with Sandbox(workers=1) as sandbox:
        assert sandbox.run([]) == []


def test_a_killed_worker_is_replaced():
    with Sandbox(workers=1, limits=LIMITS) as sandbox:
        sandbox._workers[0]._process.kill()
        assert sandbox.run([PASSING])[0].status == "passed"
        slow = Program("slow", "import time\ntime.sleep(0.8)", "pass")
        timer = threading.Timer(0.3, lambda: os.kill(sandbox._workers[0]._process.pid, signal.SIGKILL))
        timer.start()
        assert sandbox.run([slow])[0].status == "passed"
        assert [verdict.status for verdict in sandbox.run([PASSING, slow])] == ["passed", "passed"]


def test_a_worker_that_dies_twice_is_infrastructure(monkeypatch):
    with Sandbox(workers=1, limits=LIMITS) as sandbox:
        monkeypatch.setattr(pool._Worker, "_ask", lambda *_: None)
        assert sandbox.run([PASSING])[0].status == "infrastructure"


def test_nothing_survives():
    with Sandbox(workers=2, limits=LIMITS) as sandbox:
        folder = sandbox._folder
        sandbox.run([Program(str(n), f"import time\ntime.sleep(60 + {n})", "pass") for n in range(2)])
    time.sleep(0.2)
    assert not folder.exists()
    assert str(folder) not in "".join(_command_lines())


def _command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue


@pytest.mark.parametrize("without", ["", "namespaces"])
def test_workers_end_with_a_killed_harness(without):
    script = ("import sys\nfrom plum_utils.sandbox import *\n"
              f"s = Sandbox(workers=1, limits=Limits(seconds=2), without=({without!r},))\n"
              "print(s._folder, flush=True)\ns.run([Program('x', 'while True: pass', 'pass')])")
    harness = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                               cwd=Path(__file__).parents[2])
    folder = Path(harness.stdout.readline().strip())
    time.sleep(0.3)
    harness.kill()
    harness.communicate()
    deadline = time.monotonic() + 10
    while any(str(folder) in line for line in _command_lines()):
        assert time.monotonic() < deadline, "a worker outlived its harness"
        time.sleep(0.1)
    with Sandbox(workers=1, limits=LIMITS):  # the next one clears up
        assert not folder.exists()


def test_refuses_to_start_when_network_cannot_be_denied():
    everything = ("namespaces", "seccomp", "landlock")
    ours = f"plum-sandbox-{os.getpid()}-*"
    before = set(Path(tempfile.gettempdir()).glob(ours))
    with pytest.raises(SandboxError, match="network and file writes.*allow_weak"):
        Sandbox(workers=1, without=everything)
    assert set(Path(tempfile.gettempdir()).glob(ours)) == before
    with Sandbox(workers=1, limits=Limits(allow_weak=True), without=everything) as sandbox:
        assert "WEAK, not denied: network and file writes" in sandbox.layers
        assert sandbox.run([PASSING])[0].status == "passed"


def test_layers_are_named():
    with Sandbox(workers=1) as sandbox:
        assert re.fullmatch(r"sandbox: .*resource limits", sandbox.layers)


def test_low_hard_limits_of_the_host_do_no_harm():
    script = ("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
              "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
              "from plum_utils.sandbox import *\n"
              "with Sandbox(workers=1, limits=Limits(memory_mb=4096)) as s:\n"
              "    print(s.run([Program('x', 'x = 1', 'assert x')])[0].status)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "passed", done.stderr


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root becomes an ordinary user")
@pytest.mark.parametrize("without", ["", "namespaces"])
def test_works_for_an_ordinary_user(without, tmp_path):
    # Modules are loaded before the change of user, who may not be able to read the checkout.
    script = ("import os, shutil\nfrom pathlib import Path\nfrom plum_utils.sandbox import pool\n"
              f"pool.WORKER = shutil.copytree(pool.WORKER, {str(tmp_path / 'worker')!r})\n"
              "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
              "from plum_utils.sandbox import *\n"
              f"with Sandbox(workers=1, without=({without!r},)) as s:\n"
              "    verdicts = s.run([Program('a', 'x = 1', 'assert x'), Program('b', 'import socket; socket.socket()', ''),"
              " Program('c', 'open(\"/tmp/plum-escape\", \"w\")', '')])\n"
              "print(*[v.status for v in verdicts])")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    if "Permission denied" in done.stderr and sys.executable in done.stderr:
        pytest.skip("the ordinary user may not run this Python")
    assert done.stdout.split() == ["passed", "error", "error"], done.stdout + done.stderr


def test_threads_are_bounded(sandbox):
    """By the kernel's count of the worker's own user, or by a control group; else by memory alone."""
    if not re.search("control groups|processes", sandbox.layers):
        pytest.skip("this host counts no processes")
    code = """
        import _thread, time  # Thread.start() waits for ever for a thread that ends before it says that it began
        _thread.stack_size(32768)
        for n in range(1000):
            try:
                _thread.start_new_thread(time.sleep, (30,))
            except RuntimeError:
                raise ValueError(n)
    """
    detail = judge(sandbox, code, limits=replace(sandbox.limits, seconds=60)).detail
    found = re.match(r"ValueError: (\d+)", detail)
    assert found, detail
    assert 32 <= int(found[1]) <= 256


def test_control_groups_are_made_limited_and_removed():
    with Sandbox(workers=1, limits=LIMITS) as sandbox:
        folders = sandbox._workers[0]._group.folders
        if not folders:
            pytest.skip("this user may not make control groups here")
        assert "control groups" in sandbox.layers
        assert sandbox.run([PASSING])[0].status == "passed"
        assert all((folder / "cgroup.procs").read_text().strip() for folder in folders)
        limits = [int(path.read_text()) for folder in folders for path in folder.glob("memory.*")
                  if path.name in ("memory.max", "memory.limit_in_bytes")]
        assert all(1 << 30 <= limit <= 2 << 30 for limit in limits)
    assert not any(folder.exists() for folder in folders)


def test_groups_of_living_harnesses_are_left_alone():
    group = cgroup.Group(f"{pool.FOLDER}{os.getpid()}-x-0")
    dead = cgroup.Group(f"{pool.FOLDER}4194305-x-0")  # beyond the greatest pid
    if not group.folders:
        pytest.skip("this user may not make control groups here")
    pool._remove_stale_folders()
    assert all(folder.exists() for folder in group.folders) and not any(folder.exists() for folder in dead.folders)
    group.remove()


def test_no_descriptor_of_the_harness_reaches_a_program():
    """Whatever its number: the files with programs and tests are among them."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
    code = """
        import os
        found = []
        for handle in range(3, 4096):
            try:
                os.fstat(handle)
                found.append(handle)
            except OSError:
                pass
        def f(x): return found
    """
    try:
        with Sandbox(workers=1, limits=LIMITS) as sandbox:
            split, shared = sandbox.run([Program(mode, textwrap.dedent(code), "assert f(1) == 0, f(1)", mode=mode)
                                         for mode in ("split", "shared")])
    finally:
        for handle in held:
            os.close(handle)
    assert "AssertionError: [3, 4]:" in split.detail, "its two pipes"
    assert "AssertionError: [3, 4]:" in shared.detail, "its report and its detail"


def test_without_control_groups_all_else_holds():
    with Sandbox(workers=1, limits=LIMITS, without=("cgroup",)) as sandbox:
        assert "control groups" not in sandbox.layers and sandbox.run([PASSING])[0].status == "passed"


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, also where the tests are a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_the_sandbox_usable(monkeypatch, ctrl_c, workers):
    programs = [Program(str(number), f"import time\ntime.sleep(0.3)  # {number}", "pass") for number in range(30)]
    judge, busy, begun = pool._Worker.judge, [], []

    def noted(worker, *arguments):
        begun.append(worker)
        busy.append(worker)
        outcome = judge(worker, *arguments)
        busy.remove(worker)
        return outcome

    monkeypatch.setattr(pool._Worker, "judge", noted)
    with Sandbox(workers=workers, limits=LIMITS) as sandbox:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(programs)
        assert busy == [], "a thread still uses its worker"
        assert len(begun) < 10 * workers, "programs were begun after the interrupt"
        assert [verdict.status for verdict in sandbox.run([PASSING] * 3 + programs[:2])] == ["passed"] * 5


def test_a_report_that_comes_between_the_looks_at_pipe_and_process_counts(monkeypatch):
    import supervisor
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"noncestarted\nnonceloaded\nncedone failed 0 0 0\nnoncedone passed 1 0 0\n")
        os._exit(0)
    os.close(writer)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    class Blinked:
        """A poll whose first look finds the process gone, and was too early for the pipe."""

        def __init__(self):
            self.inner, self.looks = poll(), 0
            self.register = self.inner.register

        def poll(self, *arguments):
            self.looks += 1
            return [one for one in self.inner.poll(*arguments) if self.looks > 1 or one[0] != reader]

    poll = supervisor.select.poll
    monkeypatch.setattr(supervisor.select, "poll", Blinked)
    try:
        limits = {"seconds": 9, "cpu_seconds": 9, "patience": 1.0, "heavy": []}
        found = supervisor.watch(reader, [pid], time.monotonic(), limits, b"nonce")
    finally:
        os.waitpid(pid, 0)
        os.close(reader)
    assert found[:2] == ({"started": None, "loaded": None, "done": ("passed", 1, 0, 0)}, False)


def test_an_error_of_ours_is_raised_not_lost(monkeypatch):
    with Sandbox(workers=2, limits=LIMITS) as sandbox:
        monkeypatch.setattr(pool._Worker, "judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sandbox.run([PASSING])


def test_numpy_is_imported_once_a_worker_and_its_random_numbers_are_the_same_for_all(sandbox):
    program = [Program(str(number), f"import numpy as np\nx = np.random.rand()  # {number}", "assert x < 0, x")
               for number in range(4)]
    verdicts = sandbox.run(program)
    assert len({verdict.detail for verdict in verdicts}) == 1 and "AssertionError: 0." in verdicts[0].detail
    assert min(verdict.cpu_seconds for verdict in verdicts) < 0.1


def test_no_module_of_ours_can_be_imported(sandbox):
    """Neither the worker's nor, by way of an editable install, the package's; others may have the same names."""
    names = [path.stem for path in pool.WORKER.glob("*.py") if path.stem != "__main__"]
    assert "supervisor" in names and "rehearsal" in names
    code = f"""
        import importlib
        for name in {[*names, "plum_utils", "plum_utils.sandbox"]}:
            try:
                file = importlib.import_module(name).__file__
            except ImportError:
                continue
            if file.startswith({str(pool.WORKER.parents[1])!r}):
                raise SystemError(file)
    """
    assert judge(sandbox, code).detail == ""
