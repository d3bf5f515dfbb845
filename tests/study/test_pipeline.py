"""The pipeline over tiny notebooks: what is skipped, what is stale, what a failure and a kill leave behind."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from plum_utils.data.evalplus import CACHED
from plum_utils.models.number_types import settled
from plum_utils.params import Params
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import STAGES
from plum_utils.study import hub_access
from plum_utils.study import pipeline as pipeline_module
from plum_utils.study.commands import main
from plum_utils.study.notebooks import MARK, kernel_environment
from plum_utils.study.pipeline import NotReady, Pipeline, RunLocked

PARAMS = Params(name="tiny", sampling={"k": 2})


@pytest.fixture(scope="module")
def params_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("params") / "tiny.yaml"
    path.write_text("name: tiny\nsampling: {k: 2}\n")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_notebooks) -> Path:
    """Stages 01 to 03, really executed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    Pipeline(PARAMS, Run(folder), tiny_notebooks).execute(list(STAGES[:3]))
    return folder


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Names of the notebooks that would run; instead of a kernel, a stand-in writes what they write."""
    names: list[str] = []

    def stand_in(source, folder, parameters, environment):
        names.append(source.stem)
        stage = Run(parameters["run_dir"]).stage_dir(source.stem)
        (stage / "rows.json").write_text(json.dumps([source.stem, parameters["params"]["seed"]]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.name).write_text("{}")
        return ""

    monkeypatch.setattr(pipeline_module, "run_notebook", stand_in)
    return names


def cli(params_file: Path, run_dir: Path, notebooks: Path, *more: str) -> list[str]:
    return ["run", str(params_file), "--run-dir", str(run_dir), "--notebooks", str(notebooks), *more]


def states(run_dir: Path, notebooks: Path, params: Params = PARAMS) -> dict[str, tuple[str, str]]:
    line = Pipeline(params, Run(run_dir), notebooks)
    return {stage.number: line.state(stage) for stage in STAGES}


def test_finished_stages_are_up_to_date_and_the_rest_missing(run_dir, tiny_notebooks):
    assert [state for state, _ in states(run_dir, tiny_notebooks).values()] == ["up to date"] * 3 + ["missing"] * 3


def test_a_parameter_makes_only_the_stages_that_read_it_stale(run_dir, tiny_notebooks):
    changed = PARAMS.model_copy(update={"labels": PARAMS.labels.model_copy(update={"mypy": False})})
    found = states(run_dir, tiny_notebooks, changed)
    assert found["01"][0] == found["02"][0] == "up to date"
    assert found["03"] == ("stale", "changed: parameters (labels.mypy)")


def test_a_changed_notebook_is_stale(run_dir, tiny_notebooks, tmp_path):
    edited = Path(shutil.copytree(tiny_notebooks, tmp_path / "edited"))
    notebook = nbformat.read(edited / "02_sampling.ipynb", as_version=4)
    notebook.cells[0].source += " again"
    nbformat.write(notebook, edited / "02_sampling.ipynb")
    assert states(run_dir, edited)["02"] == ("stale", "changed: notebook")


def test_a_missing_or_edited_output_is_stale(run_dir, tiny_notebooks):
    (run_dir / "01_testgen/rows.json").write_text("edited")
    (run_dir / "tables/table_02_sampling.csv").unlink()
    found = states(run_dir, tiny_notebooks)
    assert found["01"] == ("stale", "01_testgen/rows.json is missing or was changed")
    assert found["02"] == ("stale", "tables/table_02_sampling.csv is missing or was changed")


def test_a_changed_local_input_is_stale(tmp_path, tiny_notebooks, executed):
    data = tmp_path / "data.jsonl"
    data.write_text("1\n")
    line = Pipeline(Params(name="x", data={"train": str(data)}), Run(tmp_path / "run"), tiny_notebooks)
    line.execute([STAGES[0]])
    data.write_text("2\n")
    assert line.state(STAGES[0]) == ("stale", "changed: inputs")


@pytest.mark.parametrize(("more", "stale"), [
    ({"evaluation": {"suites": [{"name": "humaneval"}, {"name": "mbpp"}]}}, ["05"]),
    ({"data": {"decontaminate": True}}, ["01", "02", "03", "04", "05"]),
    ({"evaluation": {"suites": [{"name": "heldout_basics"}]}}, []),
])
def test_stages_are_stale_when_evalplus_data_they_read_arrives_or_changes(tmp_path, tiny_notebooks, executed,
                                                                         monkeypatch, more, stale):
    monkeypatch.delenv("MBPP_OVERRIDE_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line = Pipeline(Params(name="x", **more), Run(tmp_path / "run"), tiny_notebooks)

    def found() -> list[str]:
        return [stage.number for stage in STAGES if line.state(stage) == ("stale", "changed: inputs")]

    line.execute(list(STAGES))
    file = tmp_path / "evalplus" / CACHED["mbpp"]
    file.parent.mkdir()
    assert found() == []
    file.write_text("{}\n")
    assert found() == stale
    line.execute(list(STAGES))
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(shutil.copy(file, tmp_path / "named.jsonl")))
    assert found() == [], "the same bytes in another place"
    (tmp_path / "named.jsonl").write_text("{} \n")
    assert found() == stale


def test_run_skips_what_is_up_to_date(run_dir, params_file, tiny_notebooks, executed, capsys):
    assert main(cli(params_file, run_dir, tiny_notebooks)) == 0
    assert executed == ["04_train_kto", "05_evalplus_eval", "06_livecodebench_eval"]
    assert "[2/6] 02_sampling: up to date, skipped" in capsys.readouterr().out


def test_downstream_runs_again_only_if_what_it_reads_changed(run_dir, params_file, tiny_notebooks, executed):
    main(cli(params_file, run_dir, tiny_notebooks))
    executed.clear()
    main(cli(params_file, run_dir, tiny_notebooks, "--only", "04", "--force"))  # leaves the same bytes
    main(cli(params_file, run_dir, tiny_notebooks))
    assert executed == ["04_train_kto"]
    (run_dir / "01_testgen/rows.json").unlink()
    main(cli(params_file, run_dir, tiny_notebooks, "-p", "data.train=intermediate_train"))
    assert executed == ["04_train_kto", "01_testgen", "02_sampling", "03_preferences", "04_train_kto",
                        "05_evalplus_eval"]  # it counts apart what resembles a training instruction


@pytest.mark.parametrize(("options", "expected"), [
    (["--from", "02", "--force"], ["02", "03", "04", "05", "06"]),
    (["--only", "03", "--force"], ["03"]),
    (["--only", "03"], []),
    (["--from", "05_evalplus_eval"], None),
])
def test_from_only_force(run_dir, params_file, tiny_notebooks, executed, capsys, options, expected):
    status = main(cli(params_file, run_dir, tiny_notebooks, *options))
    assert [name[:2] for name in executed] == (expected or [])
    assert status == (2 if expected is None else 0)
    if expected is None:
        assert "04_train_kto is needed and is missing" in capsys.readouterr().err


def test_only_warns_of_a_stale_predecessor(run_dir, params_file, tiny_notebooks, executed, capsys):
    (run_dir / "02_sampling/rows.json").write_text("edited")
    assert main(cli(params_file, run_dir, tiny_notebooks, "--only", "03", "--force")) == 0
    assert "warning: 02_sampling is stale" in capsys.readouterr().out


def test_other_parameters_clear_the_stage_but_not_its_shards(run_dir, params_file, tiny_notebooks, executed):
    leftover = run_dir / "02_sampling" / "adapter.bin"
    leftover.write_text("of the old parameters")
    main(cli(params_file, run_dir, tiny_notebooks, "--only", "02", "-p", "sampling.k=3"))
    assert not leftover.exists()
    assert len(list((run_dir / "02_sampling/shards").glob("*.jsonl"))) == 6
    leftover.write_text("of an interrupted run with the same parameters")
    run = Run(run_dir)
    run.update_stage("02_sampling", run.manifest()["stages"]["02_sampling"] | {"status": "running"})
    main(cli(params_file, run_dir, tiny_notebooks, "--only", "02", "-p", "sampling.k=3"))
    assert leftover.exists()
    main(cli(params_file, run_dir, tiny_notebooks, "--only", "02", "-p", "sampling.k=3", "--force"))
    assert not leftover.exists() and not (run_dir / "02_sampling/shards").exists()


def test_manifest_records_what_ran(run_dir):
    manifest = Run(run_dir).manifest()
    assert Params.model_validate(manifest["params"]) == settled(PARAMS)
    entry = manifest["stages"]["03_preferences"]
    assert entry["status"] == "done" and entry["seeds"] == {"run": 0, "training": [0]}
    assert {"python", "torch", "transformers", "trl", "papermill", "mypy"} <= set(entry["versions"])
    assert set(entry["inputs"]) == {"01_testgen/rows.json", "02_sampling/rows.json"}
    assert set(entry["outputs"]) == {"03_preferences/rows.json", "notebooks/03_preferences.ipynb",
                                     "tables/table_03_preferences.csv", "tables/table_03_preferences.md"}
    assert entry["seconds"] > 0 and entry["peak_memory_mb"] >= 0 and entry["started"] <= entry["finished"]
    assert {"commit", "device", "fingerprint", "params"} <= set(entry)


def test_no_machine_path_in_manifest_or_notebook_metadata(run_dir):
    text = (run_dir / "manifest.json").read_text()
    notebook = nbformat.read(run_dir / "notebooks/02_sampling.ipynb", as_version=4)
    assert str(ROOT) not in text and sys.prefix not in text and "/tmp" not in text
    assert set(notebook.metadata["papermill"]) <= {"duration", "start_time", "end_time", "version"}


def test_failing_cell_is_named_and_the_notebook_kept(tmp_path, params_file, tiny_notebooks, capsys):
    status = main(cli(params_file, tmp_path, tiny_notebooks, "--only", "01", "-p", "seed=13"))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 1
    assert error == ('failed: 01_testgen.ipynb, cell 5 ("9 Results", if p.seed == 13:): ValueError: '
                     'seed 13 brings bad luck')
    kept = (tmp_path / "notebooks/01_testgen.failed.ipynb").read_text()
    assert "Traceback" in kept and not (tmp_path / "notebooks/01_testgen.ipynb").exists()
    assert Run(tmp_path).manifest()["stages"]["01_testgen"]["status"] == "failed"
    assert main(cli(params_file, tmp_path, tiny_notebooks, "--only", "01")) == 0
    assert not (tmp_path / "notebooks/01_testgen.failed.ipynb").exists()


def test_a_kernel_that_dies_is_named(tmp_path, params_file, tiny_notebooks, capsys):
    notebooks = Path(shutil.copytree(tiny_notebooks, tmp_path / "notebooks"))
    notebook = nbformat.read(notebooks / "01_testgen.ipynb", as_version=4)
    notebook.cells[-1].source = "import os; os._exit(9)"
    nbformat.write(notebook, notebooks / "01_testgen.ipynb")
    assert main(cli(params_file, tmp_path / "run", notebooks, "--only", "01")) == 1
    assert 'cell 5 ("9 Results", import os; os._exit(9)): the kernel stopped' in capsys.readouterr().err


def test_a_torn_shard_is_made_again(run_dir, params_file, tiny_notebooks):
    shard, whole = run_dir / "02_sampling/shards/s3.jsonl", (run_dir / "02_sampling/shards/s3.jsonl").read_bytes()
    shard.write_bytes(whole[:-5])
    (run_dir / "02_sampling/rows.json").unlink()
    (run_dir / "made.txt").unlink()
    assert main(cli(params_file, run_dir, tiny_notebooks, "--only", "02")) == 0
    assert (run_dir / "made.txt").read_text().split() == ["s3"] and shard.read_bytes() == whole


def start_slow_run(params_file: Path, run_dir: Path, notebooks: Path) -> subprocess.Popen:
    """The command line, in stage 02, with two of six shards written."""
    command = [sys.executable, "-m", "plum_utils", *cli(params_file, run_dir, notebooks, "--only", "02")]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PLUM_TEST_SLEEP": "0.5"},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               # a shell's background job ignores SIGINT, and so would all that it starts
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 60
    while len(list((run_dir / "02_sampling/shards").glob("s*.jsonl"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None, "the run did not get to its second shard"
        time.sleep(0.05)
    return process


def kernels_of(run_dir: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(run_dir.resolve()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            pass
    return found


def test_kill_9_then_the_same_command_loses_and_repeats_nothing(tmp_path, finished, params_file, tiny_notebooks):
    process = start_slow_run(params_file, tmp_path, tiny_notebooks)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states(tmp_path, tiny_notebooks)["02"][0] == "interrupted"
    assert main(cli(params_file, tmp_path, tiny_notebooks, "--only", "02")) == 0
    assert kernels_of(tmp_path) == []
    made = (tmp_path / "made.txt").read_text().split()
    assert made[:2] == ["s0", "s1"] and made.count("s0") == made.count("s1") == 1
    for path in (finished / "02_sampling").rglob("*.json*"):
        assert (tmp_path / path.relative_to(finished)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long("seconds"))])
def test_a_stopped_command_takes_its_kernel_along(tmp_path, params_file, tiny_notebooks, number):
    process = start_slow_run(params_file, tmp_path, tiny_notebooks)
    assert kernels_of(tmp_path)
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    assert kernels_of(tmp_path) == []
    assert not (tmp_path / "notebooks/02_sampling.ipynb").exists()


def test_two_runs_in_one_folder_are_refused(tmp_path, tiny_notebooks, executed):
    first, second = (Pipeline(PARAMS, Run(tmp_path), tiny_notebooks) for _ in range(2))
    with first._lock(), pytest.raises(RunLocked, match=f"process {os.getpid()} is working"):
        second.execute([STAGES[0]])
    second.execute([STAGES[0]])
    assert executed == ["01_testgen"]


def test_a_missing_predecessor_is_an_error(tmp_path, tiny_notebooks, executed):
    with pytest.raises(NotReady, match="01_testgen is needed and is missing: run it first, with --from 01"):
        Pipeline(PARAMS, Run(tmp_path), tiny_notebooks).execute([STAGES[2]])
    assert executed == []


def test_a_missing_notebook_is_an_error(tmp_path, executed):
    with pytest.raises(NotReady, match="01_testgen.ipynb: no such notebook"):
        Pipeline(PARAMS, Run(tmp_path), tmp_path).execute([STAGES[0]])


def test_status_takes_parameters_or_a_folder(run_dir, params_file, tiny_notebooks, capsys):
    more = ["--notebooks", str(tiny_notebooks)]
    assert main(["status", str(params_file), "--run-dir", str(run_dir), *more]) == 0
    by_file = capsys.readouterr().out
    assert main(["status", str(run_dir), *more]) == 0
    assert capsys.readouterr().out == by_file
    assert re.search(r"03_preferences +up to date +\d+ s", by_file) and "06_livecodebench_eval   missing" in by_file


def test_report_links_what_the_stages_wrote(run_dir, tiny_notebooks, capsys):
    assert main(["report", str(run_dir), "--notebooks", str(tiny_notebooks)]) == 0
    text = Path(capsys.readouterr().out.strip()).read_text()
    assert text.index("Table 01 testgen") < text.index("Table 02 sampling") < text.index("Wall time")
    assert "(notebooks/03_preferences.ipynb)" in text and str(run_dir) not in text


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "nowhere.yaml"], "nowhere.yaml: no such parameter file"),
    (["run", "{file}", "--only", "07"], "unknown stage '07'"),
    (["run", "{file}", "-p", "sampling.k"], "-p sampling.k: expected key=value"),
    (["run", "{file}", "-p", "sampling.k=[1"], "the value is not YAML"),
    (["run", "{file}", "-p", "sampling.kk=1"], "-p sampling.kk: unknown parameter"),
    (["status", "{folder}"], "no run's folder"),
    (["run", "{folder}"], "run takes a parameter file"),
])
def test_bad_command_lines_are_one_clear_line(params_file, tmp_path, capsys, arguments, message):
    assert main([text.format(file=params_file, folder=tmp_path) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_the_commit_behind_a_revision_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    p = Params(name="x", policy={"model": "org/model"}, data={"train": "oss_instruct"},
               livecodebench={"source": "org/set"}, generator={"live_instructions": 0})
    assert hub_access.commits(p) == hub_access.commits(PARAMS) == {}
    (tmp_path / "models--org--model/refs").mkdir(parents=True)
    (tmp_path / "models--org--model/refs/main").write_text("c0ffee")
    (tmp_path / "datasets--ise-uiuc--Magicoder-OSS-Instruct-75K/snapshots/d00d").mkdir(parents=True)
    for one in ("a", "b"):
        (tmp_path / "datasets--org--set/snapshots" / one).mkdir(parents=True)
    assert hub_access.commits(p) == {"policy.model": "c0ffee", "data.train": "d00d"}
    pinned = p.model_copy(update={"policy": p.policy.model_copy(update={"revision": "beef"})})
    (tmp_path / "models--org--model/snapshots/beef").mkdir(parents=True)
    assert hub_access.commits(pinned)["policy.model"] == "beef"


def test_what_vllm_says_goes_to_a_file_of_the_run(tmp_path):
    configured = json.loads(Path(kernel_environment(PARAMS, tmp_path)["VLLM_LOGGING_CONFIG_PATH"]).read_text())
    log = logging.getLogger("vllm")
    before = log.handlers[:], log.level, log.propagate
    try:
        logging.config.dictConfig(configured)
        logging.getLogger("vllm.v1.core").warning("Maximum concurrency for 8,192 tokens per request: 0.90x")
    finally:
        log.handlers[:], log.level, log.propagate = before
    assert "WARNING vllm.v1.core: Maximum concurrency" in (tmp_path / "logs/vllm.log").read_text()


def test_hub_is_off_unless_a_model_or_set_needs_it(tmp_path):
    assert kernel_environment(PARAMS, tmp_path)["HF_HUB_OFFLINE"] == "1"
    for other in ({"policy": {"model": "org/model"}}, {"livecodebench": {"source": "org/set"}},
                  {"data": {"train": "oss_instruct"}}, {"generator": {"backend": "vllm", "model": "org/model"}}):
        assert "HF_HUB_OFFLINE" not in kernel_environment(Params(name="x", **other), tmp_path)
    (tmp_path / "model").mkdir()
    assert kernel_environment(Params(name="x", policy={"model": str(tmp_path / "model")}), tmp_path)["HF_HUB_OFFLINE"]
    local = Params(name="x", data={"train": "oss_instruct", "source": str(tmp_path)})
    assert kernel_environment(local, tmp_path)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stages_declare_the_parameters_their_notebook_reads(stage):
    path = ROOT / "notebooks" / f"{stage.name}.ipynb"
    if not path.exists():
        pytest.skip("not written yet")
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    read = set(re.findall(r"\bp\.(\w+)", code)) & set(Params.model_fields) - {"name"}
    assert read <= set(stage.sections)
