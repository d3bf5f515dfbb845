"""Verdicts, labels and the sets that are trained on (lesson 03)."""

import lazy_loader

NAMES = {
    "browser": ["MOST_INSTRUCTIONS", "SampleBrowser", "different", "gather", "most_mixed", "static_html"],
    "labels": ["CHOSEN", "LABEL_OF_STATUS", "REJECTED", "UNRUNNABLE", "correctness_ratios",
               "flow_counts", "label_samples", "pick", "selected", "text_key"],
    "sets": ["defining_rows", "dpo_rows", "kto_rows", "names_called", "require_both_sides", "sft_rows", "unrunnable_rows",
             "validation_rows"],
    "static_checks": ["CANNOT_RUN_CODES", "check_programs"],
    "verdicts": ["judge_samples"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
