"""Prompts in, programs out (lesson 02)."""

import lazy_loader

NAMES = {
    "adapters": ["adapter_digest", "load_policies"],
    "completions": ["Backend", "Completion", "Metered", "release_memory"],
    "engines": ["open_backend"],
    "extract": ["extract_code"],
    "number_types": ["number_type"],
    "prompts": ["GENERATOR_PROMPT", "generator_message", "policy_message", "policy_prompt", "render", "token_table"],
    "sampling": ["instruction_shards", "open_policy_backend", "sample_policy", "sample_shards"],
    "shapes": ["model_config"],
    "stopping": ["stopping_point"],
    "tokenizer": ["load_tokenizer", "spelled"],
    "transformers_engine": ["entropy"],
    "weights": ["load_model", "resolve_model"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=NAMES)
