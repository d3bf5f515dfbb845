"""A preference set that is given away: what `datasets` reads, what the card says, and what the hub gets."""

from __future__ import annotations

import json

import pytest
from datasets import load_dataset
from tiny_llama import all_rows

from plum_utils.jsonl import sha256_file, write_jsonl
from plum_utils.params import Params
from plum_utils.runs import Run
from plum_utils.study.commands import main

ROWS = all_rows()
VERDICTS = "| status | programs |\n|---|---|\n| timeout | 7 |\n"


def labelled_run(folder, negatives="failing", **sets) -> Run:
    run = Run(folder)
    files = {f"03_preferences/{name}.jsonl": rows for name, rows in ({"kto": ROWS["kto"], "dpo": ROWS["dpo"]} | sets).items()}
    for name, rows in files.items():
        write_jsonl(run.path / name, rows)
    (run.path / "tables").mkdir()
    (run.path / "tables" / "verdicts.md").write_text(VERDICTS)
    params = {"name": "tiny", "data": {"train": "oss_instruct", "source": str(folder)},
              "generator": {"backend": "openai", "model": "big"}, "training": {"negatives": negatives}}
    run.record_params(Params.model_validate(params).model_dump(mode="json"))
    run.update_stage("03_preferences", {"status": "done", "commit": "abc123",
                                        "outputs": {name: sha256_file(run.path / name) for name in files}})
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return labelled_run(tmp_path / "run")


def export(run, folder, *more) -> int:
    return main(["export", str(run.path), "--dataset", "--to", str(folder), *more])


def test_datasets_reads_the_folder_set_by_set(run, tmp_path):
    assert export(run, tmp_path / "set") == 0
    for name in ("kto", "dpo"):
        read = load_dataset(str(tmp_path / "set"), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert read.to_list() == ROWS[name] and len(read) >= 6


def test_the_card_says_what_there_is_how_it_was_made_and_whose_terms_hold(run, tmp_path):
    assert export(run, tmp_path / "set") == 0
    card = (tmp_path / "set" / "README.md").read_text()
    for part in ("| kto | 24 | 12 | 0 |", "| dpo | 6 | - | 0 |", VERDICTS, "| `label` | true: desirable", "| `rejected` |",
                 "| tests | written by big |", "commit abc123", "source_datasets:\n- ise-uiuc/Magicoder-OSS-Instruct-75K",
                 "license: other", "are untrusted", "those of ise-uiuc/Magicoder-OSS-Instruct-75K", "of a generator's provider"):
        assert part in card, part
    assert str(tmp_path) not in card


def test_a_set_without_rows_is_left_out_and_a_text_that_is_no_utf8_too(tmp_path):
    broken = json.loads(json.dumps(ROWS["kto"][0]).replace("good", "\\ud800"))
    run = labelled_run(tmp_path / "run", kto=[broken, *ROWS["kto"]], dpo=[])
    assert export(run, tmp_path / "set") == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["README.md", "kto.jsonl"]
    card = (tmp_path / "set" / "README.md").read_text()
    assert "| kto | 24 | 12 | 1 |" in card and "config_name: dpo" not in card and "| `rejected` |" not in card
    read = load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.to_list() == ROWS["kto"]


def test_ktos_rows_are_those_with_the_rejected_side_that_the_run_trains_on(tmp_path):
    run = labelled_run(tmp_path / "run", "unrunnable", unrunnable=ROWS["kto"][:8])
    assert export(run, tmp_path / "set") == 0
    read = load_dataset(str(tmp_path / "set"), "kto", split="train", cache_dir=str(tmp_path / "cache"))
    assert read.to_list() == ROWS["kto"][:8]
    assert "undesirable: cannot run |" in (tmp_path / "set" / "README.md").read_text()


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda run: run.update_stage("03_preferences", {"status": "failed", "outputs": {}}), "no preference set here"),
    (lambda run: (run.path / "03_preferences" / "dpo.jsonl").unlink(), "dpo.jsonl: missing, or not as stage 03 left it"),
], ids=["not done", "damaged"])
def test_a_set_that_is_not_whole_is_not_exported(run, tmp_path, capsys, spoil, said):
    spoil(run)
    assert export(run, tmp_path / "set") == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_folder_is_replaced_only_by_force(run, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    assert export(run, tmp_path / "set") == 2 and "--force" in capsys.readouterr().err
    assert export(run, tmp_path / "set", "--force") == 0 and (tmp_path / "set" / "kto.jsonl").exists()


@pytest.mark.parametrize("more", [["--policy", "kto-seed0"], ["--gguf"], ["--public"]])
def test_options_that_do_not_belong_together_are_refused(run, tmp_path, capsys, more):
    assert export(run, tmp_path / "set", *more) == 2
    assert f"{more[0]}" in capsys.readouterr().err and not (tmp_path / "set").exists()


# --- the hub ----------------------------------------------------------------------------------------------------------

def test_a_set_is_pushed_to_a_private_repository_and_again_without_being_made_again(run, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)  # the default; no file is large here
    push = ("--push-to-hub", "me/prefs")
    assert export(run, tmp_path / "set", *push) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("/me/prefs/commit/c0ffee")
    pushed = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    assert hub.private == {"datasets/me/prefs": True} and hub.files["datasets/me/prefs"] == pushed and len(pushed) == 3
    (tmp_path / "set" / "README.md").write_text((tmp_path / "set" / "README.md").read_text() + "mine")
    assert export(run, tmp_path / "set", *push) == 0  # the folder is the export of these rows: what its owner added stays
    assert hub.files["datasets/me/prefs"]["README.md"].endswith(b"mine")


def test_a_folder_of_other_rows_is_not_pushed(run, tmp_path, hub, capsys):
    assert export(labelled_run(tmp_path / "other", kto=ROWS["kto"][:8]), tmp_path / "set") == 0
    assert export(run, tmp_path / "set", "--push-to-hub", "me/prefs") == 2
    assert "is there already" in capsys.readouterr().err and hub.private == {}


def test_public_is_asked_for(run, tmp_path, hub):
    assert export(run, tmp_path / "set", "--push-to-hub", "prefs", "--public") == 0
    assert hub.private == {"datasets/me/prefs": False}


def refused(run, tmp_path, capsys, repo="me/prefs") -> str:
    assert export(run, tmp_path / "set", "--push-to-hub", repo) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: --push-to-hub")
    return lines[0]


def test_who_is_not_logged_in_is_told_so_before_anything_is_exported(run, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not know the token" in refused(run, tmp_path, capsys)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "not logged in: run `hf auth login`, or set HF_TOKEN" in refused(run, tmp_path, capsys)
    assert not (tmp_path / "set").exists()


def test_what_the_hub_refuses_is_one_line_and_the_export_stays(run, tmp_path, hub, capsys):
    assert "theirs/prefs: no permission" in refused(run, tmp_path, capsys, "theirs/prefs")
    assert "no name of a repository" in refused(run, tmp_path, capsys, "a/b/c")
    hub.refuse = 418
    assert "the hub refused" in (line := refused(run, tmp_path, capsys)) and f"whole in {tmp_path / 'set'}" in line
    assert export(run, tmp_path / "set", "--push-to-hub", "me/prefs") == 0


def test_a_hub_that_does_not_answer_is_one_line(run, tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the hub was not reached (ConnectError" in refused(run, tmp_path, capsys)
