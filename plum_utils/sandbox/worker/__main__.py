"""A worker of ``plum_utils.sandbox``, started as a script: folder, descriptors of five files (as one word, between
colons), control groups to join (the same), layers to leave out."""

import os

# ``random`` would draw a new seed in every fork; programs get the generator as it is here, seeded with 0.
register, os.register_at_fork = os.register_at_fork, lambda **_: None

import collections  # noqa: E402, F401  (imported once here, so that forked programs find them warm)
import copy  # noqa: E402, F401
import datetime  # noqa: E402, F401
import fcntl  # noqa: E402
import functools  # noqa: E402, F401
import gc  # noqa: E402
import heapq  # noqa: E402, F401
import itertools  # noqa: E402, F401
import math  # noqa: E402, F401
import random  # noqa: E402
import re  # noqa: E402, F401
import resource  # noqa: E402
import string  # noqa: E402, F401
import sys  # noqa: E402
import typing  # noqa: E402, F401

import isolation  # noqa: E402
import rehearsal  # noqa: E402
import supervisor  # noqa: E402

os.register_at_fork = register
OURS = ("isolation", "supervisor", "programs", "suites", "collecting", "calls", "clocks", "doors", "wire", "arrays",
        "rehearsal")


def forget_ourselves():
    """Programs shall find neither our modules nor, by way of an editable install, the harness's package, nor our
    arguments in the place of their own."""
    for name in OURS:
        sys.modules.pop(name, None)
    sys.modules["plum_utils"] = None
    sys.argv[:], sys.orig_argv[:] = [supervisor.programs.NAME], ["python", supervisor.programs.NAME]
    sys.path[:] = [path for path in sys.path if path and path != os.path.dirname(os.path.abspath(__file__))]


def take_descriptors(files):
    """Move the files, the requests and the answers to 3 and up, and close all others, whatever their numbers."""
    high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 12) for handle in (*files, 0, 1)]
    for target, handle in enumerate(high, supervisor.CODE):
        os.dup2(handle, target)
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)  # on macOS it may be infinite
    os.closerange(supervisor.ANSWERS + 1, max(most, *files, *high) + 1)


def join(groups):
    """Move this process, and so all its forks, into control groups."""
    for group in filter(None, groups.split(":")):
        try:
            with open(os.path.join(group, "cgroup.procs"), "w") as handle:
                handle.write("0")
        except OSError:
            return False
    return bool(groups)


def main(folder, files, groups, *without):
    joined = join(groups)
    take_descriptors(list(map(int, files.split(":"))))
    forget_ourselves()
    namespaces = isolation.enter_namespaces() if isolation.LINUX and "namespaces" not in without else ()
    random.seed(0)
    rehearsal.rehearse()
    gc.collect()
    gc.freeze()  # forks then do not copy every object's page at their first collection
    if not namespaces:
        supervisor.serve((), folder, os.getpid(), joined, without)
    number = os.getpid()
    pid = os.fork()  # the first process of a new PID namespace: when it ends, the kernel ends the others
    if pid == 0:
        supervisor.serve(namespaces, folder, number, joined, without)
    os.waitpid(pid, 0)


main(*sys.argv[1:])
