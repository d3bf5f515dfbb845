"""Run untrusted programs: each in processes of its own, without network or files, with limits, and with a verdict."""

from plum_utils.sandbox.opening import judge, open_sandbox
from plum_utils.sandbox.pool import Sandbox, weakness
from plum_utils.sandbox.program import Limits, Program, SandboxError, Verdict
from plum_utils.sandbox.status import Status

__all__ = ["Limits", "Program", "Sandbox", "SandboxError", "Status", "Verdict", "judge", "open_sandbox", "weakness"]
