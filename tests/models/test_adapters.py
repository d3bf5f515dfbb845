"""Trained policies by the hash of their weights."""

from __future__ import annotations

from plum_utils.models.adapters import adapter_digest


def test_an_adapters_digest_follows_its_weights(tmp_path):
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = adapter_digest(tmp_path)
    weights.write_bytes(b"two")
    assert adapter_digest(None) == "none" and adapter_digest(tmp_path) != first != "none"
