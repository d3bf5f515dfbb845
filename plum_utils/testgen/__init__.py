"""Solutions with tests that agree (lesson 01)."""

import lazy_loader

NAMES = {
    "audit": ["draw_instructions", "false_positives", "mutation_scores", "suite_verdicts"],
    "generator": ["Draw", "estimate", "generate_responses", "ledger", "responses"],
    "response": ["MalformedResponse", "parse_response"],
    "suites": ["always_true", "build_suites", "consistency_by_source", "count_tests",
               "hollow", "reason_class", "references_by_instruction", "suites_by_instruction",
               "swallowed_asserts", "vacuous_asserts"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
