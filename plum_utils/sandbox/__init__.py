"""Run untrusted programs: each in processes of its own, without network or files, with limits, and with a verdict."""

from plum_utils.sandbox.opening import judge, open_sandbox
from plum_utils.sandbox.pool import Limits, Program, Sandbox, SandboxError, Verdict, weakness
from plum_utils.sandbox.status import Status

__all__ = ["Limits", "Program", "Sandbox", "SandboxError", "Status", "Verdict", "judge", "open_sandbox", "weakness"]
