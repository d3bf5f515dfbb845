"""Everything that is drawn."""

import lazy_loader

NAMES = {
    "comparisons": ["fig_before_after", "fig_power", "fig_sharpness"],
    "flow": ["fig_flow", "flow_rows"],
    "lessons": ["fig_diversity", "fig_figure2", "fig_label_flow", "fig_lengths", "fig_mutation", "fig_pass_at_k",
                "fig_table1", "fig_tests_per_instruction", "fig_training", "fig_validation", "fig_verdicts",
                "fig_wins_losses", "side_by_side"],
    "widgets": ["show"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
