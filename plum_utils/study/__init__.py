"""Notebooks as runs; sweeps; pages; the command line."""

import lazy_loader

NAMES = {
    "given": ["accept_single_values"],
    "lesson": ["open_stage", "save_and_show"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
