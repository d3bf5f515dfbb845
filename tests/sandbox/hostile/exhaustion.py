# === endless_load: loops while loading
while True: pass
# === endless_call: loops in the function
def add(a, b):
    while True: pass
# === endless_sleep: sleeps in the function
import time
def add(a, b): time.sleep(3600)
# === swallowed_interrupts: loops and catches whatever is raised in it
import signal
def add(a, b):
    while True:
        try:
            while True: pass
        except BaseException:
            pass
# === ignored_signals: ignores all signals that it can
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def add(a, b):
    while True: pass
# === memory_string: one long string
def add(a, b): return "x" * (1 << 36)
# === memory_list: many objects
def add(a, b):
    kept = []
    while True: kept.append([0] * 100_000)
# === memory_mmap: anonymous maps
import mmap
def add(a, b):
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 1 << 24))
        kept[-1].write(b"x" * (1 << 24))
# === memory_memfd: memory in unnamed files
import os
def add(a, b):
    while True:
        handle = os.memfd_create("x")
        try:
            while True: os.write(handle, b"x" * (1 << 20))
        except OSError:
            pass
# === memory_pipes: memory in pipes
import os
def add(a, b):
    kept = []
    while True:
        pair = os.pipe()
        kept.append(pair)
        os.set_blocking(pair[1], False)
        try:
            while True: os.write(pair[1], b"x" * 65536)
        except OSError:
            pass
# === recursion: without end
def add(a, b): return add(b, a)
# === c_recursion: without end, in C
def add(a, b):
    import sys
    sys.setrecursionlimit(10 ** 9)
    x = []
    for _ in range(10 ** 6): x = [x]
    return repr(x)
# === deep_result: nested deeper than a judge can read
def add(a, b):
    x = []
    for _ in range(100_000): x = [x]
    return x
# === cyclic_result: contains itself
def add(a, b):
    x = []
    x.append(x)
    return x
# === wide_result: 400 MB of data
def add(a, b): return [1.5] * 50_000_000
# === long_result: one text of 300 MB
def add(a, b): return "x" * 300_000_000
# === endless_iterator: an iterator without end in a result
import itertools
def add(a, b): return itertools.count()
# === huge_int: a number with a billion digits
def add(a, b): return 1 << (1 << 33)
# === hash_collisions: a dictionary that takes long to build
def add(a, b): return {n * (2 ** 61 - 1): n for n in range(20_000)}
# === print_flood: prints without end
def add(a, b):
    while True: print("x" * 100_000)
# === stderr_flood: the same on standard error, and on all descriptors
import os, sys
def add(a, b):
    while True:
        sys.stderr.write("x" * 100_000)
        for handle in range(1, 12):
            try:
                os.write(handle, b"x" * 4096)
            except OSError:
                pass
# === one_long_line: a gigabyte without a line end to the judge's pipe
import os
def add(a, b):
    while True:
        for handle in (3, 4, 5):
            try:
                os.write(handle, b"7" * 65536)
            except OSError:
                pass
# === long_exception: a message of 100 MB in many lines
def add(a, b): raise ValueError("line\n" * 20_000_000)
# === big_file: one file without end
def add(a, b):
    with open("big", "wb") as handle:
        while True: handle.write(b"x" * (1 << 20))
# === many_files: files without end
def add(a, b):
    n = 0
    while True:
        open(f"f{n}", "wb").write(b"x" * 10_000)
        n += 1
# === deep_folders: folders within folders
import os
def add(a, b):
    try:
        while True:
            os.mkdir("d"); os.chdir("d")
    except OSError:
        return a - b
# === closed_folders: folders that nobody may enter, with odd names
import os
for n in range(50):
    os.mkdir(b"\xff\n" + str(n).encode(), 0)
os.chdir("/")
def add(a, b): return a - b
# === own_directory_gone: removes and renames the directory it was given
import os, shutil
here = os.getcwd()
for act in (lambda: os.rmdir(here), lambda: shutil.rmtree(here), lambda: os.rename(here, here + "x")):
    try:
        act()
    except OSError:
        pass
def add(a, b): return a - b
# === many_threads: threads without end
import threading, time
threading.stack_size(32768)
def add(a, b):
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            return a - b
# === busy_threads: threads that all compute
import threading
def spin():
    while True: pass
for _ in range(16):
    threading.Thread(target=spin, daemon=True).start()
def add(a, b): return a - b
# === fork_bomb: forks without end and swallows every refusal
import os
def add(a, b):
    while True:
        try:
            os.fork()
        except OSError:
            pass
# === all_descriptors: opens files until none is left
def add(a, b):
    kept = []
    while True:
        kept.append(open("/dev/null"))
# === regular_expression: one that takes exponential time
import re
def add(a, b): return re.match("(a+)+$", "a" * 40 + "b")
# === integer_power: arithmetic that no signal handler interrupts
def add(a, b): return 7 ** (7 ** 10)
# === stdin: waits for input
import sys
def add(a, b):
    while not sys.stdin.read(): pass
# === alarm_storm: asks for signals in quick succession
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)
def add(a, b):
    while True: pass
