# After contest_clock.py: outputs are compared line by line, numbers by their value.
from decimal import Decimal


def numbers(line):
    try:
        return [Decimal(word) for word in line.split()]
    except ArithmeticError:
        return None

def same(got, expected):
    got = [line.strip() for line in got.strip().split("\n")]
    expected = [line.strip() for line in expected.strip().split("\n")]
    if len(got) != len(expected):
        return False
    for one, two in zip(got, expected):
        if one != two and (numbers(one) is None or numbers(one) != numbers(two)):
            return False
    return True

def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, (given,), seconds)
        assert type(out) is str and same(out, expected), (given[:60], str(out)[:60], expected[:60])
