"""KTO, DPO and SFT (lesson 04)."""

import lazy_loader

NAMES = {
    "kl_order": ["kto_weights", "order_for_kl", "repeat_epochs", "trainable_rows"],
    "memory": ["GIB"],
    "objectives": ["gold_rows", "training_sets"],
    "phases": ["memory_used", "outcome", "settle", "train"],
    "planner": ["CARDS", "by_hand_type", "card_memory", "covers", "plan"],
    "policy": ["load_policy", "verbatim_tokenizer"],
    "speed": ["prepare_process"],
    "trainers": ["make_kto_trainer", "reference_points"],
    "value_function": ["ValuedBatch", "fig_value", "mean_loss", "pull", "static_value", "value_widget"],
    "watching": ["Watch"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
