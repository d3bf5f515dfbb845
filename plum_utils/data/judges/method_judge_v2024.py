# Results are compared as LiveCodeBench did until 2025. Keys of a lone dictionary are whole numbers where they can be, and an
# expected dictionary, or the first of a list, is put into a list of its own. A result must be plain JSON; it may be the first
# element of what is expected.
def judge_v2024(run, tests, seconds):
    for given, expected in tests:
        arguments, wanted = [json.loads(line) for line in given.split("\n")], json.loads(expected)
        arguments = by_number(arguments[0]) or arguments
        wanted = by_number(wanted) or wanted
        wanted = isinstance(wanted, list) and wanted and by_number(wanted[0]) or wanted
        out = timed(run, arguments, seconds)
        json.dumps(out)
        out = list(out) if isinstance(out, tuple) else out
        first = [wanted[0]] if isinstance(wanted, list) and wanted else []
        rows = [list(row) for row in out] if isinstance(out, list) and out and isinstance(out[0], tuple) else out
        assert out == wanted or out in first or rows in first, (given[:60], str(out)[:60], expected[:60])


def by_number(value):
    """A list of this one dictionary, its keys as numbers; nothing where that cannot be."""
    try:
        return [{int(key): one for key, one in value.items()}]
    except (AttributeError, ValueError):
        return None
