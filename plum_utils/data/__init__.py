"""What is asked: instructions, problems, what they share, and the paper's printed numbers."""

import lazy_loader

NAMES = {
    "evalplus": ["OVERRIDES"],
    "instructions": ["Instruction", "load_instructions", "split_instructions"],
    "livecodebench": ["DIFFICULTIES", "IDLE_OPCODES", "STRING_OPCODES", "bundled_path", "decode_private_tests",
                      "encode_private_tests", "load_livecodebench", "pickled_string"],
    "overlaps": ["overlapping_tasks"],
    "paper": ["table"],
    "problems": ["load_suite"],
    "selection": ["selection_table", "training_instructions"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
