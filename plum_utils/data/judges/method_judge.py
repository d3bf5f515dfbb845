# In the judge's process, where the time of each test is measured and expected outputs stay.
import json
import sys

import clocks  # of the sandbox's worker


def timed(function, arguments, seconds):
    return clocks.limited(function, seconds)(*arguments)

sys.set_int_max_str_digits(50000)  # as LiveCodeBench

# Results are compared as JSON.
def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, [json.loads(line) for line in given.split("\n")], seconds)
        out = list(out) if isinstance(out, tuple) else out
        assert out == json.loads(expected), (given[:60], str(out)[:60], expected[:60])
