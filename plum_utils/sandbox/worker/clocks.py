"""The time of a program and of its single calls, by the clock that the kernel keeps of its process.

On a loaded machine a process gets a part of the processor, and this clock runs as much slower: the verdict stays the same.
A candidate in a process of its own can neither stop nor set it back. What it sleeps away is not on it, so the wall clock
ends a call too, after ``patience`` times as long. With a patience of 1 the wall clock alone decides.
"""

import signal
import time

candidate = None  # the pid of its process; None: this one
patience = 1.0
late: list = []  # not empty once a call was out of time, whatever the tests made of it


class OutOfTime(BaseException):  # no Exception, so that tests do not take it for the candidate's
    pass


def cpu_seconds(pid):
    """Processor time used so far by another process; 0 where the host does not tell."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's name of that process' clock
    except OSError:
        return 0.0


def now(ours=False):
    """Seconds on the clock that decides, of the candidate; ``ours``: of this process."""
    if patience == 1:
        return time.monotonic()
    return time.process_time() if ours or candidate is None else cpu_seconds(candidate)


def limited(function, seconds=1.0):
    """The function; a call of it that takes longer raises ``OutOfTime``."""
    def call(*arguments):
        end, deadline = now() + seconds, time.monotonic() + seconds * patience

        def look(*_):
            left = min(end - now(), deadline - time.monotonic())
            if left <= 0:
                late.append(True)
                raise OutOfTime("out of time in one call")
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))

        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            result = function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if now() > end:  # several threads use it up faster than the wall clock goes
            look()
        return result
    return call
