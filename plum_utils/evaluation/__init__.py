"""Did it get better? (lessons 05 and 06)."""

import lazy_loader

NAMES = {
    "beside_paper": ["beside_table2", "beside_table4", "claimed_gains", "dumbbells", "problems_of_gain", "table2",
                     "table4"],
    "contests": ["contest_program", "contest_prompt"],
    "power": ["claims_table", "describe_claim", "describe_power", "paper_claims", "power_curves", "power_table"],
    "protocols": ["PROTOCOLS", "load_suites"],
    "scoring": ["score", "widest"],
    "sharpness": ["describe_entropy", "describe_equal_entropy", "equal_entropy_table", "measure_entropies",
                  "sharpness_table"],
    "solutions": ["generate_solutions", "score_solutions", "solve_all", "take_program"],
    "tables": ["describe_change", "describe_reach", "describe_sharpness", "difficulty_table", "direction", "headline",
               "long_form", "pass_at_k_table", "platform_table", "reach_table", "results_table", "slices",
               "window_table", "wins_losses"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
