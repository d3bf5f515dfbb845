"""What `check` finds: with a GPU pretended at the driver's edge; the hub and the generator are servers on this machine."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest
import torch
from chat_server import models, serving
from local_server import Handler, running

from plum_utils.data import evalplus
from plum_utils.data.evalplus import OVERRIDES
from plum_utils.params import Params, load_params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study import check as check_module
from plum_utils.study import commands, devices, hub_access, probe
from plum_utils.study.check import check, stops, table
from plum_utils.study.devices import Card
from plum_utils.study.pipeline import Pipeline
from plum_utils.testgen.server import ResponseStore

GIB = 2**30
PAPER = ROOT / "params" / "paper" / "oss_codeqwen_base_kto.yaml"
SAFE = {"config.json": 700, "tokenizer.json": 10**6, "model-1.safetensors": 8 * 10**9, "model-2.safetensors": 7 * 10**9}
OSS, LCB = "ise-uiuc/Magicoder-OSS-Instruct-75K", "livecodebench/code_generation_lite"
HUB = {"models/Qwen/CodeQwen1.5-7B": SAFE, f"datasets/{OSS}": {"data-oss_instruct-decontaminated.jsonl": 10**8},
       f"datasets/{LCB}": {"test.jsonl": 10**9}}
NO_DRIVER = "Found no NVIDIA driver on your system."


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine with evalplus' data, an empty hub cache, a C compiler and no GPU."""
    for suite, variable in OVERRIDES.items():
        (tmp_path / suite).write_text("")
        monkeypatch.setenv(variable, str(tmp_path / suite))
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    caches = (hub_access.ask, check_module._served, evalplus._download, devices.cards)
    for one in caches:
        one.cache_clear()
    yield
    for one in caches:
        one.cache_clear()


@contextmanager
def hub(monkeypatch, repositories: dict):
    """The hub's interface for ``{"models/owner/name": {file: bytes}}``; a string in place of the files is its error code,
    and ``gated`` among the files shuts everybody out."""
    asked = []

    class Repositories(Handler):
        def do_GET(self):
            path = self.path.partition("?")[0].removeprefix("/api/")
            if "/" in path:  # the library asks for something of its own, too
                asked.append(path)
            name, _, rest = path.partition("/revision/")
            name, _, access = name.partition("/auth-check")
            files = repositories.get(name, "RepoNotFound")
            files = "RevisionNotFound" if rest not in ("", "main", "v1") else files
            code = "GatedRepo" if self.path.endswith("/auth-check") and "gated" in files else files
            if isinstance(code, str):
                self.reply(403 if code == "GatedRepo" else 404, {"X-Error-Code": code, "X-Error-Message": code}, {})
            else:
                siblings = [{"rfilename": file, "size": size} for file, size in files.items()]
                gated = "manual" if "gated" in files else False
                self.reply(200, {}, {"id": name.partition("/")[2], "sha": "a" * 40, "gated": gated, "siblings": siblings})

    with running(Repositories) as port:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        yield asked


def found(p: Params, tmp_path, stages=STAGES) -> list:
    return check([Pipeline(p, Run(tmp_path / "run"))], list(stages))


def paper(port: int, **more) -> Params:
    return load_params(PAPER, {"generator.base_url": f"http://127.0.0.1:{port}/v1", "generator.model": "m",
                               "generator.store": "outputs/no_such_store"} | more)


def stopping(findings: list) -> dict[str, str]:
    return {one.about: one.found for one in findings if one.stops}


def pretend(monkeypatch, *cards: Card) -> None:
    monkeypatch.setattr(devices, "cards", lambda: cards)


# --- the embedded model -----------------------------------------------------------------------------------------------

def test_mini_is_well_asks_no_network_and_takes_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.HfApi", None)  # whoever asks the hub fails
    p = load_params(ROOT / "params" / "mini.yaml")
    began = time.process_time()
    findings = found(p, tmp_path)
    assert time.process_time() - began < 5  # a model loaded takes longer
    assert not [one for one in findings if one.mend]
    assert {one.about for one in findings} == {"evalplus' data", "GPU", "disk"}


def test_nothing_is_looked_at_where_nothing_would_run(monkeypatch, tmp_path):
    monkeypatch.setattr(check_module, "known_times", lambda line, chosen, force: dict.fromkeys(["01", "02"], 0.0))
    assert found(load_params(PAPER), tmp_path) == []


# --- GPU --------------------------------------------------------------------------------------------------------------

def cuda_fails(monkeypatch, error: Exception) -> None:
    def init():
        raise error

    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.mark.parametrize(("driver", "error", "said", "mend"), [
    ([], RuntimeError(NO_DRIVER), f"none ({NO_DRIVER}), and the policy has 7.3 billion parameters", "run --dry"),
    (["RTX 4090, driver 525.60"], RuntimeError("The NVIDIA driver on your system is too old (found version 12000)."),
     "RTX 4090, driver 525.60 is there, and torch cannot use it: The NVIDIA driver on your system is too old", "update"),
    (["RTX 4090, driver 580.10"], AssertionError("Torch not compiled with CUDA enabled"),
     "torch cannot use it: Torch not compiled", "install the extra gpu"),
])
def test_a_paper_row_without_a_usable_gpu_stops_with_the_reason(monkeypatch, driver, error, said, mend):
    cuda_fails(monkeypatch, error)
    monkeypatch.setattr(devices, "of_the_driver", lambda: driver)
    (one,) = check_module._device(load_params(PAPER), {"02"}, 0)
    assert one.stops and said in one.found and mend in one.mend
    mini = load_params(ROOT / "params" / "mini.yaml")
    (small,) = check_module._device(mini, {"02"}, 0)
    assert not small.stops and bool(small.mend) == bool(driver), "an embedded model does without, but is told of a card"


def test_an_unknown_policy_is_judged_by_its_download():
    p = Params(name="x", policy={"model": "somebody/unknown"})
    assert [one.stops for size in (10**9, 3 * 10**10) for one in check_module._device(p, {"02"}, size)] == [False, True]


def test_the_drivers_cards_are_read_from_nvidia_smi(monkeypatch, tmp_path):
    assert devices.why_none()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA A100, 535.10'\necho 'NVIDIA T4, 535.10'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.of_the_driver() == ["NVIDIA A100, driver 535.10", "NVIDIA T4, driver 535.10"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert devices.of_the_driver() == []


def test_cards_are_asked_in_another_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of this process alone
    assert len(devices.cards()) == torch.cuda.device_count()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "RTX 4090")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (20 * GIB, 24 * GIB))
    assert [Card(*one) for one in probe.cards()] == [Card("RTX 4090", 20 * GIB, 24 * GIB)]


@pytest.mark.parametrize(("cards", "more", "expected"), [
    ([Card("H100", 79 * GIB, 80 * GIB)], {}, {}),
    ([Card("H100", 70 * GIB, 80 * GIB)], {}, {"GPU memory": "lesson 02: the policy's engine takes 72.0 GiB; 70.0 of 80.0 are free"}),
    ([Card("T4", 15 * GIB, 16 * GIB)], {"training.quantization": "none"}, {"GPU memory": "lesson 04 does not fit"}),
    ([Card("H100", 79 * GIB, 80 * GIB)] * 2, {"training.processes": 4},
     {"GPU": "training.processes is 4, and there are 2 GPUs"}),
])
def test_free_memory_is_held_against_what_lessons_load(monkeypatch, cards, more, expected):
    pretend(monkeypatch, *cards)
    stopped = stopping(check_module._device(load_params(PAPER, {"policy.dtype": "bfloat16"} | more), {"02", "04"}, 0))
    assert stopped.keys() == expected.keys() and all(text in stopped[about] for about, text in expected.items())


def test_several_gpus_of_which_one_is_used_are_a_note(monkeypatch):
    pretend(monkeypatch, *[Card("RTX 4090", 24 * GIB, 24 * GIB)] * 2)
    findings = list(check_module._device(load_params(PAPER, {"policy.dtype": "bfloat16"}), {"02", "04"}, 0))
    assert [one.mend for one in findings if "training uses one" in one.found] and not stops(findings)
    assert findings[0].found.startswith("2 x RTX 4090")


def test_triton_needs_a_compiler_where_there_is_a_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    pretend(monkeypatch, Card("H100", 79 * GIB, 80 * GIB))
    assert stopping(check_module._device(load_params(PAPER), {"02"}, 0)).keys() == {"C compiler"}


# --- the hub ----------------------------------------------------------------------------------------------------------

def test_a_paper_row_that_lacks_nothing(monkeypatch, tmp_path):
    pretend(monkeypatch, Card("H100", 79 * GIB, 80 * GIB))
    monkeypatch.setattr(check_module.shutil, "disk_usage", lambda place: type("", (), {"free": 10**12}))
    with hub(monkeypatch, HUB) as asked, serving(listed=models("m")) as server:
        findings = found(paper(server.port), tmp_path)
    assert not [one for one in findings if one.mend]
    assert len(asked) == 3, "each repository once, and no file is downloaded"
    texts = " ".join(one.found for one in findings)
    assert "CodeQwen1.5-7B: 15.0 GB to download, safetensors" in texts and "downloads 16.1" in texts
    assert "serves m: 3,000 answers, 0 stored" in texts


@pytest.mark.parametrize(("name", "files", "said", "mend"), [
    ("models/Qwen/CodeQwen1.5-7B", None, "no model Qwen/CodeQwen1.5-7B, or it is private", "mend policy.model"),
    ("models/Qwen/CodeQwen1.5-7B", SAFE | {"gated": 1}, "is gated", "accept its terms at http"),
    ("models/Qwen/CodeQwen1.5-7B", {"config.json": 1, "a.gguf": 2}, "no weights (safetensors or .bin) and no tokenizer.json",
     "give another"),
    ("models/Qwen/CodeQwen1.5-7B", {"config.json": 1, "model.safetensors": 2, "tokenizer.model": 1, "vocab.json": 1},
     "has no tokenizer.json", "give another"),  # load_tokenizer would refuse it, after the download
    (f"datasets/{OSS}", {"README.md": 1}, f"{OSS} has no data-oss_instruct-decontaminated.jsonl", "mend data.train"),
    (f"datasets/{LCB}", {"test2.jsonl": 1}, f"{LCB} has no test.jsonl", "mend livecodebench.source"),
    (f"datasets/{LCB}", "GatedRepo", "is gated", f"/datasets/{LCB}, then `hf auth login`"),
])
def test_what_the_hub_lacks_is_named_with_its_mend(monkeypatch, tmp_path, name, files, said, mend):
    repositories = {key: value for key, value in (HUB | {name: files}).items() if value is not None}
    with hub(monkeypatch, repositories):
        answers = [hub_access.ask(what) for what in hub_access.wanted(load_params(PAPER), {"02", "06"})]
    (wrong,) = [answer for answer in answers if answer.mend]
    assert said in wrong.found and mend in wrong.mend


def test_weights_as_bin_and_a_missing_revision(monkeypatch):
    files = {"config.json": 1, "tokenizer.json": 1, "pytorch_model.bin": 2 * 10**9}
    with hub(monkeypatch, {"models/a/b": files}):
        there = hub_access.ask(hub_access.Wanted("policy.model", "a/b", "model", "v1"))
        missing = hub_access.ask(hub_access.Wanted("policy.model", "a/b", "model", "v2"))
    assert there.found.endswith("2.0 GB to download, bin") and not there.mend
    assert (missing.found, missing.mend) == ("a/b has no revision 'v2'", "mend policy.revision")


def test_an_unreachable_hub_and_what_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    what = hub_access.Wanted("policy.model", "a/b", "model")
    assert "127.0.0.1:9 does not answer" in hub_access.ask(what).found
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / ("a" * 40)
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    index = {"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "1.safetensors").write_text("")
    hub_access.ask.cache_clear()
    assert "does not answer" in hub_access.ask(what).found, "half of the weights are no model"
    (snapshot / "2.safetensors").write_text("")
    hub_access.ask.cache_clear()
    assert hub_access.ask(what) == hub_access.Answer("a/b is in the cache")


# --- disk, data, generator --------------------------------------------------------------------------------------------

def test_a_disk_that_is_too_small_stops(monkeypatch, tmp_path):
    monkeypatch.setattr(check_module.shutil, "disk_usage", lambda place: type("", (), {"free": 5 * 10**9}))
    (one,) = check_module._disk(load_params(PAPER), {"02", "04"}, tmp_path / "a" / "b", 15 * 10**9)
    assert one.stops and one.found.startswith("5 GB are free, 18.8 at most") and "HF_HOME" in one.mend


def test_missing_evalplus_data_stops_only_who_asks_for_its_figures(monkeypatch, tmp_path):
    monkeypatch.setenv(OVERRIDES["mbpp"], str(tmp_path / "absent"))
    (here, mini), (also, row) = (check_module._evalplus(load_params(path), list(STAGES))
                                 for path in (ROOT / "params" / "mini.yaml", PAPER))
    assert not here.mend and mini.mend and not mini.stops
    assert not also.mend and row.stops and "MBPP_OVERRIDE_PATH" in row.mend


def test_where_mbpp_is_only_looked_at_for_overlaps_the_note_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv(OVERRIDES["mbpp"], str(tmp_path / "absent"))
    (one,) = check_module._evalplus(Params(name="x", data={"decontaminate": True}), list(STAGES))
    assert one.mend.endswith("overlaps with it are not looked for") and not one.stops


def test_rounds_need_room_for_merged_policies(monkeypatch, tmp_path):
    p = load_params(PAPER, {"rounds": 3, "policy.dtype": "bfloat16"})
    (one,) = check_module._disk(p, set(), tmp_path, 0)
    assert "merged policies 29.0" in one.found


def test_local_files_that_are_missing_stop(tmp_path):
    keys = ("data.source", "livecodebench.source", "policy.model")
    p = load_params(PAPER, dict.fromkeys(keys, str(tmp_path)))
    texts = [one.found for one in check_module._files(p, {"01", "06"}) if one.stops]
    assert len(texts) == 3 and "no file" in texts[0] and "test.jsonl" in texts[1] and "no config.json" in texts[2]


@pytest.mark.parametrize(("listed", "more", "stopped", "said"), [
    (models("m"), {}, False, "serves m: 3,000 answers, 0 stored"),
    (models("m"), {"generator.price_prompt": 10.0, "generator.price_completion": 30.0}, False, "0 stored; at most about $200"),
    (models("other"), {}, True, "has no 'm'; it serves other"),
])
def test_the_generators_server_is_asked_before_anything_is_spent(listed, more, stopped, said):
    with serving(listed=listed) as server:
        (one,) = check_module._generator(paper(server.port, **more))
    assert one.stops == stopped and said in one.found and bool(one.mend) == stopped and server.bodies == []


def test_a_server_that_is_not_there_stops_unless_all_answers_are_stored(monkeypatch, tmp_path):
    p = paper(9, **{"generator.store": str(tmp_path), "data.train_limit": 2, "generator.responses": 1})
    (one,) = check_module._generator(p)
    assert one.stops and "vllm serve m" in one.mend and "generator.backend=vllm" in one.mend
    store = ResponseStore(tmp_path, "m")
    store.path.write_text('{"key": "a"}\n{"key": "b"}\n')
    (one,) = check_module._generator(p)
    assert not one.stops and one.mend


# --- the command ------------------------------------------------------------------------------------------------------

def test_run_stops_before_lesson_01_with_all_findings_and_check_only_says_them(monkeypatch, tmp_path, capsys):
    started = []
    monkeypatch.setattr(Pipeline, "execute", lambda self, *_: started.append(self.params.name))
    monkeypatch.setattr(commands, "write_report", lambda run: "report.md")
    monkeypatch.setattr(commands, "write_html", lambda run: "report.html")
    monkeypatch.setattr(commands, "announce", lambda line, chosen: print("forecast of", line.params.name))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    run = [str(PAPER), "--run-dir", str(tmp_path / "run"), "-p", "generator.base_url=http://127.0.0.1:9/v1"]
    assert commands.main(["run", *run]) == 2 and started == []
    said = capsys.readouterr()
    assert all(about in said.out for about in ("GPU", "hub", "generator")) and "--no-check" in said.err
    assert commands.main(["check", *run]) == 1 and started == []
    assert "forecast of oss_codeqwen_base_kto" in capsys.readouterr().out
    assert commands.main(["run", *run, "--no-check"]) == 0 and started == ["oss_codeqwen_base_kto"]
    assert commands.main(["check", str(ROOT / "params" / "mini.yaml"), "--run-dir", str(tmp_path / "run")]) == 0


def test_a_sweeps_runs_are_looked_at_together(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "announce", lambda line, chosen: print("forecast"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    sweep = ROOT / "params" / "paper" / "table5.yaml"
    assert commands.main(["check", str(sweep), "--run-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.count("Magicoder-OSS-Instruct-75K is") == 1 and said.count(": forecast") == 6
    commands.main(["check", str(ROOT / "params" / "mini" / "rounds_controlled.yaml"), "--run-dir", str(tmp_path)])
    assert "mini_rounds/round3: forecast" in capsys.readouterr().out


def test_the_table_has_what_stops_first_and_fits_a_terminal():
    wide = check_module.Finding("hub", "gone " * 30, "bring it " * 20, True)
    lines = table([check_module.Finding("GPU", "fine " * 30), wide]).splitlines()
    assert lines[2].startswith("STOP") and max(map(len, lines)) <= 120
