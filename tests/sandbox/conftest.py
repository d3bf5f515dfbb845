"""Puts the suite's helpers, and the worker's modules as its script finds them, on the path of these tests."""

import sys
from pathlib import Path

import plum_utils.sandbox

sys.path[:0] = [str(Path(__file__).parent), str(Path(plum_utils.sandbox.__file__).parent / "worker")]
