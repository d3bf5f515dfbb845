"""What is said, before anything runs, on a host whose sandbox has limits and nothing else: macOS, and some containers."""

from __future__ import annotations

from plum_utils.params import Params
from plum_utils.sandbox import SandboxError, weakness
from plum_utils.stages import STAGES, Stage

MESSAGE = """this host cannot deny {weakness} to the programs that the model writes.
They would run as you, with limits of time and memory only: able to read, change and delete your files and to reach the
network. The study runs thousands of programs that nobody has read, so nothing was started. Either
  - run it in a Linux container, which needs nothing but Docker or Podman (docs/sandbox.md, "Weak hosts"):
      docker run --rm -it -v "$PWD":/study -v plum-venv:/study/.venv -w /study python:3.12 make study
  - or accept it: run the same command with --allow-weak-sandbox (the same as -p sandbox.allow_weak=true), or
      make study RUN_FLAGS=--allow-weak-sandbox"""


def check_host(params: list[Params], stages: list[Stage] | tuple[Stage, ...] = STAGES) -> None:
    """Refuse runs whose programs this host cannot isolate; asked of the sandbox itself, in a second.

    Raises:
        SandboxError: one of the runs would have its programs judged on this host, and does not accept its weakness.
    """
    judged_here = any("sandbox" in stage.sections for stage in stages) and any(
        one.sandbox.ray is None and not one.sandbox.allow_weak for one in params)
    if judged_here and (weak := weakness()):
        raise SandboxError(MESSAGE.format(weakness=weak))
