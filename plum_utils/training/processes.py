"""What several processes share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


def is_sharded() -> bool:
    """Whether this is a worker whose launch shares out the model's weights too (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shared_dataset(rows: list[dict[str, Any]], folder: Path) -> Any:
    """The rows as a data set whose cache all processes share: TRL's first process writes the precomputed reference
    there, where the others look for it."""
    from accelerate import PartialState
    from datasets import Dataset, load_from_disk

    state = PartialState()
    with state.main_process_first():
        if state.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            Dataset.from_list(rows).save_to_disk(folder)
        return load_from_disk(folder)
