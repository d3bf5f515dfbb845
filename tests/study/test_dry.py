"""Dry runs: tiny models of the three architectures, rows in the real formats, and a whole run of six notebooks."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from transformers import AutoConfig

from plum_utils.data import selection
from plum_utils.jsonl import read_jsonl
from plum_utils.models import prompts
from plum_utils.models.engines import open_backend
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.params import ParamsError, load_params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.study import dry
from plum_utils.study.sweeps import is_sweep
from plum_utils.testgen import generator

PAPER = ROOT / "params" / "paper"
FILES = [path for path in sorted(PAPER.glob("*.yaml")) if not is_sweep(path)]
KINDS = {"deepseek-coder": ("llama", "oss_magicoder_ds_kto.yaml"), "codellama": ("llama", "evol_wizardcoder_cl_kto.yaml"),
         "codeqwen": ("qwen2", "sharegpt_codeqwen_chat_kto.yaml"),
         "starcoder2": ("starcoder2", "sharegpt_starcoder2_base_kto.yaml")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.mark.parametrize("kind", ["codellama", *(pytest.param(kind, marks=pytest.mark.long("seconds")) for kind in KINDS if kind != "codellama")])
def test_the_tiny_model_has_the_architecture_and_writes_all_three_programs(kind, parts):
    architecture, file = KINDS[kind]
    small = dry.dry_params(load_params(PAPER / file), parts)
    assert AutoConfig.from_pretrained(small.policy.model).model_type == architecture
    backend = open_backend("transformers", small.policy.model, "float32")
    tokenizer = load_tokenizer(small.policy.model)
    prompt = prompts.render(tokenizer, prompts.policy_message(dry.questions()[0], small.policy.answer_instruction),
                        small.policy.prompt, small.policy.system)
    outs = backend.generate([prompt], n=40, temperature=1.0, max_tokens=40, stop=small.sampling.stop,
                            stop_after_program=small.sampling.stop_after_program)[0]
    written = Counter(out.text for out in outs)
    assert sum(written[f"```python\n{program}```\n"] for program in dry.PROGRAMS) >= 30
    assert all(written[f"```python\n{program}```\n"] for program in dry.PROGRAMS)


@pytest.mark.parametrize("name", ["oss_instruct", "evol_instruct", "sharegpt_code"])
def test_the_rows_pass_the_real_filters_and_every_request_has_its_response(name, parts, tmp_path):
    path = next(path for path in FILES if load_params(path).data.train == name)
    small = dry.dry_params(load_params(path), parts)
    chosen = selection.training_instructions(small)
    assert len(chosen) == dry.N_INSTRUCTIONS and all(item.solution for item in chosen)
    answered = generator.responses(small, chosen, tmp_path)
    assert all(len(item.responses) == small.generator.responses for item in answered)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_of_the_paper_has_a_dry_form_that_keeps_what_it_is_about(path, parts, monkeypatch):
    monkeypatch.setattr(dry, "tiny_model", lambda params, folder: folder / "not needed here")
    p = load_params(path)
    small = dry.dry_params(p, parts)
    assert small.policy.prompt == p.policy.prompt and small.training.objective == p.training.objective
    assert small.training.negatives == p.training.negatives and small.data.train == p.data.train
    assert dry.dry_params(load_params(path, {"training.processes": 8}), parts).training.accumulation == 8
    assert small.sampling.backend == "auto" and dry.dry_params(
        load_params(path, {"sampling.backend": "transformers"}), parts).sampling.backend == "transformers"
    assert small.generator.backend == p.generator.backend and small.sampling.temperature == p.sampling.temperature


@pytest.mark.parametrize(("changes", "message"), [
    ({"policy.model": "org/unknown"}, "of no known architecture; add it to plum_utils/study/dry.py"),
    ({"data.train": "basics_train"}, "is no hub data set; it needs no dry run"),
])
def test_what_cannot_be_run_dry_is_said(changes, message, parts):
    with pytest.raises(ParamsError, match=message):
        dry.dry_params(load_params(FILES[0], changes), parts)


@pytest.mark.long("seconds")
def test_an_experiment_runs_through_all_six_notebooks(tmp_path):
    command = [sys.executable, "-m", "plum_utils", "run", str(PAPER / "oss_starcoder2_base_sft.yaml"), "--dry",
               "--run-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = Run(tmp_path / "oss_starcoder2_base_sft")
    stages = run.manifest()["stages"]
    assert len(stages) == 6 and {entry["status"] for entry in stages.values()} == {"done"}
    labels = Counter(row["label"] for row in read_jsonl(run.path / "03_preferences" / "kto.jsonl"))
    assert labels[True] and labels[False]
    assert run.load_table("training_summary").objective.tolist() == ["sft"]
    results = run.load_table("results")
    assert {"humaneval", "humaneval+", "mbpp", "mbpp+"} <= set(results.suite)
