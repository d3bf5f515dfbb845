# In the candidate's process: a program that reads standard input (`_SOURCE`), as a function from input to output.
import builtins as _builtins
import io as _io
import sys as _sys

_open, _compiled = open, []

def _run(given):
    if not _compiled:
        _compiled.append(compile(_SOURCE, "<solution>", "exec"))
    buffer = _io.TextIOWrapper(_io.BytesIO(given.encode()), encoding="utf-8")
    kept, out = (_sys.stdin, _sys.stdout), _io.StringIO()
    _sys.stdin, _sys.stdout = buffer, out
    _builtins.open = lambda file, *rest, **named: buffer if file == 0 else _open(file, *rest, **named)
    try:
        exec(_compiled[0], {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        _builtins.open, (_sys.stdin, _sys.stdout) = _open, kept
    return out.getvalue()
