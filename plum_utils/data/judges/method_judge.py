# After contest_clock.py: results are compared as JSON.
def judge(run, tests, seconds):
    for given, expected in tests:
        out = timed(run, [json.loads(line) for line in given.split("\n")], seconds)
        out = list(out) if isinstance(out, tuple) else out
        assert out == json.loads(expected), (given[:60], str(out)[:60], expected[:60])
