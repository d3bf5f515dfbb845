"""How a program can end."""

from enum import StrEnum


class Status(StrEnum):
    """What a ``Verdict`` says; as text it is the small word."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"  # did not load
    SYNTAX = "syntax"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    INFRASTRUCTURE = "infrastructure"  # the sandbox's fault: nothing is known of the program
