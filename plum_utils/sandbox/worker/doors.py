"""Standard input and output by their names in the file system, which a program's root does not have."""

import builtins
import io
import os

DOORS = {f"{folder}/{name}": handle for handle, names in enumerate((("stdin", "fd/0"), ("stdout", "fd/1")))
         for folder in ("/dev", "/proc/self") for name in names}


def open_by_name():
    """Let ``open("/dev/stdin")`` and its like open the descriptor, as on a host."""
    open_file, open_handle = io.open, os.open

    def door(path):
        return DOORS.get(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None

    def opened(file, *rest, **named):
        return open_file(file if door(file) is None else os.dup(door(file)), *rest, **named)

    def handle(path, *rest, **named):
        return open_handle(path, *rest, **named) if door(path) is None else os.dup(door(path))

    io.open = builtins.open = opened
    os.open = handle
