"""Which number type is taken on which device, what is said about it, and that every stage takes the same one."""

from __future__ import annotations

import pytest
import torch

from plum_utils.models import number_types as module
from plum_utils.models.number_types import Device, number_type, settled
from plum_utils.params import Params
from plum_utils.provenance import CPU_FLAGS, cpu
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study.pipeline import Pipeline

ZEN3 = {"avx2": True, "cpu_name": "Zen 3"}
SKYLAKE = ZEN3 | {"avx512_f": True, "avx512_vnni": True}


@pytest.mark.parametrize(("has", "system", "name"), [
    (ZEN3, "Linux", "float32"),
    (SKYLAKE, "Linux", "float32"),
    (SKYLAKE | {"avx512_bf16": True}, "Linux", "bfloat16"),
    (SKYLAKE | {"amx_tile": True, "amx_int8": True}, "Linux", "float32"),  # tiles alone: no bfloat16 products
    (SKYLAKE | {"amx_tile": True, "amx_bf16": True}, "Linux", "bfloat16"),
    ({"architecture": "aarch64", "neon": True}, "Linux", "float32"),
    ({"architecture": "aarch64", "neon": True, "bf16": True}, "Linux", "bfloat16"),
    ({"architecture": "aarch64", "neon": True, "bf16": True}, "Darwin", "float32"),
    ({}, "Linux", "float32"),
])
def test_a_cpu_takes_what_it_multiplies_in_hardware(has, system, name):
    assert module._cpu(has, system).native[0] == name


@pytest.mark.parametrize(("native", "name"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_takes_bfloat16_or_where_it_is_older_float16(native, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert module.device.__wrapped__().native[0] == name


@pytest.fixture
def on(monkeypatch):
    def device_is(has: dict) -> Device:
        found = module._cpu(has, "Linux")
        monkeypatch.setattr(module, "device", lambda: found)
        return found
    return device_is


def test_an_explicit_value_wins_and_an_emulated_one_is_warned_about_with_its_factor(on):
    on(ZEN3)
    chosen = number_type("bfloat16")
    assert chosen.name == "bfloat16" and "policy.dtype asks for it" in chosen.reason
    assert "Zen 3 emulates bfloat16" in chosen.warning and "9 times slower" in chosen.warning
    assert "emulates float16" in number_type("float16").warning


def test_what_the_device_has_arithmetic_for_is_not_warned_about(on):
    on(SKYLAKE | {"avx512_bf16": True})
    assert number_type("float32").warning == "" and "`auto` would be bfloat16" in number_type("float32").reason
    assert number_type("auto") == number_type("bfloat16") and number_type("auto").warning == ""


def test_a_settled_value_keeps_the_reason_of_auto(on):
    on(ZEN3)
    assert number_type(number_type("auto").name) == number_type("auto")


def test_auto_is_the_default_and_every_stage_of_a_run_sees_what_became_of_it(on, tmp_path, tiny_notebooks, capsys):
    on(SKYLAKE | {"avx512_bf16": True})
    params = Params(name="t")
    assert params.policy.dtype == "auto" and settled(params).policy.dtype == "bfloat16"
    pipeline = Pipeline(params, Run(tmp_path), tiny_notebooks)
    pipeline.execute([STAGES[0]])
    assert "number type: bfloat16 (this CPU multiplies bfloat16 in hardware (avx512_bf16))" in capsys.readouterr().out
    manifest = pipeline.run.manifest()
    assert manifest["params"]["policy"]["dtype"] == "bfloat16"
    entry = manifest["stages"]["01_testgen"]
    assert entry["number_type"]["name"] == "bfloat16" and entry["number_type"]["reason"]
    assert entry["cpu"] == cpu()
    assert pipeline.state(STAGES[0])[0] == "up to date"
    on(ZEN3)  # the run's folder on another machine
    assert Pipeline(params, Run(tmp_path), tiny_notebooks).state(STAGES[0]) \
        == ("stale", "changed: parameters (policy.dtype)")


def test_a_run_warns_once_of_an_emulated_type(on, tmp_path, tiny_notebooks, capsys):
    on(ZEN3)
    pipeline = Pipeline(Params(name="t", policy={"dtype": "bfloat16"}), Run(tmp_path), tiny_notebooks)
    pipeline.execute(list(STAGES[:2]))
    assert capsys.readouterr().err.count("emulates bfloat16") == 1


def test_the_cpu_is_named_with_the_flags_that_matter():
    found = cpu()
    assert found["model"] and set(found["flags"]) <= set(CPU_FLAGS)
    assert ("avx2" in found["flags"]) == bool(torch.cpu.get_capabilities().get("avx2"))
