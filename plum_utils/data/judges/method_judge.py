# In the judge's process, where the time of each test is measured and expected outputs stay.
import json
import signal
import sys


class OutOfTime(Exception):
    pass

def alarm(*_):
    raise OutOfTime("out of time in one test")

def timed(function, arguments, seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

signal.signal(signal.SIGALRM, alarm)
sys.set_int_max_str_digits(50000)  # as LiveCodeBench

# Results are compared as JSON.
def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, [json.loads(line) for line in given.split("\n")], seconds)
        out = list(out) if isinstance(out, tuple) else out
        assert out == json.loads(expected), (given[:60], str(out)[:60], expected[:60])
