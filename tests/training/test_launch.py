"""Two processes on a CPU, really launched: the rows, adapter and history of one process; killed, resumed, failed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tiny_llama import all_rows, kto_rows, params

from plum_utils.params import Params
from plum_utils.provenance import ROOT
from plum_utils.training import kl_order, launch, phases, trainers
from plum_utils.training.launch import DistributedTrainingError, launch_command
from plum_utils.training.watching import MEASURED, Watch

CONFIGS = sorted((ROOT / "params" / "accelerate").glob("*.yaml"))
PROBE = Path(__file__).with_name("distributed_probe.py")
HOW = dict(quantization="nf4", accumulation=2, epochs=10.0, save_steps=10)  # 30 steps of 2 batches of 4 rows
SEED = 3


@pytest.fixture(autouse=True, scope="module")
def one_thread_each():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def run(tiny: str, folder: Path, processes: int, **changes):
    """The folder of a KTO training's phase, and its history."""
    how = params(**HOW | {"processes": processes} | changes)
    adapter, history = phases.train("kto", tiny, all_rows(), how, folder, SEED, "bfloat16", "the policy")
    return adapter.parent, history.drop(columns=list(MEASURED), errors="ignore")  # which no two runs share


def probed(tiny: str, folder: Path, **changes):
    """As ``run`` with two processes, and what each of them wrote (``distributed_probe``)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "launch_command", lambda how, job: [
            *launch_command(how, job)[:-3], str(PROBE), str(job)])
        phase, history = run(tiny, folder, 2, **changes)
    return phase, history, [json.loads((phase / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    return run(tiny, tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory):
    return probed(tiny, tmp_path_factory.mktemp("together"))


# --- what is the same -------------------------------------------------------------------------------------------------

@pytest.mark.long("cluster")
def test_each_process_gets_whole_batches_that_keep_the_kl_rule(together):
    """accelerate gives batches to the processes in turn: not one is cut, so neighbours stay neighbours."""
    ordered = kl_order.repeat_epochs(kto_rows(), 10.0, 4, SEED)
    batches = [[(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in ordered[start:start + 4]]
               for start in range(0, len(ordered), 4)]
    for rank, wrote in enumerate(together[2]):
        seen = [[(row["prompt"], row["completion"]) for row in batch] for batch in wrote["batches"]]
        assert seen == batches[rank::2]
        for batch in wrote["batches"]:
            assert len({row["prompt"] for row in batch}) == 4
            assert [row["kl_completion"] for row in batch] == [batch[place - 1]["completion"] for place in range(4)]


@pytest.mark.long("cluster")
def test_processes_end_with_the_same_weights_and_leave_what_one_process_leaves(alone, together):
    assert together[2][0]["adapter"] == together[2][1]["adapter"]
    left = [{str(path.relative_to(phase)) for path in phase.rglob("*") if path.is_file()} for phase in
            (alone[0], together[0])]
    assert left[1] - left[0] == {"rank0.json", "rank1.json"} and left[0] <= left[1]
    assert (together[0] / "adapter" / "adapter_config.json").read_bytes() == \
        (alone[0] / "adapter" / "adapter_config.json").read_bytes()
    trained = load_file(together[0] / "adapter" / "adapter_model.safetensors")
    assert all(value.abs().sum() > 0 for name, value in trained.items() if "lora_B" in name)


@pytest.mark.long("cluster")
def test_history_follows_that_of_one_process(alone, together):
    """Steps take the same rows, so while the policy is the reference (KL 0) both are equal; from then on the KL term of
    a row is that of both processes' batches, not of its own."""
    one, two = alone[1], together[1]
    assert list(one.columns) == list(two.columns) and list(one.step) == list(two.step) == list(range(1, 31))
    assert two.loss[:2].tolist() == pytest.approx(one.loss[:2].tolist(), abs=1e-6)
    assert two.grad_norm[:2].tolist() == pytest.approx(one.grad_norm[:2].tolist(), rel=1e-2)
    apart = (two.loss - one.loss).abs()
    assert 0 < apart.max() < 0.06 and apart.mean() < 0.01


# --- killed and failed ------------------------------------------------------------------------------------------------

def workers() -> list[psutil.Process]:
    """The workers of a launch by this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline())
        if "plum_utils.training.launch" in line and "accelerate.commands" not in line:
            found.append(process)
    return found


def kill_a_worker_after(mark: Path) -> threading.Thread:
    def wait_and_kill():
        while not mark.exists():
            time.sleep(0.02)
        workers()[-1].kill()

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.long("cluster")
def test_after_a_worker_was_killed_the_training_goes_on_to_the_same_end(tiny, together, tmp_path):
    checkpoints = tmp_path / "kto-seed3" / "kto" / "checkpoints"
    killer = kill_a_worker_after(checkpoints / "checkpoint-10" / trainers.COMPLETE)
    with pytest.raises(DistributedTrainingError, match=r"training.processes: the workers failed \(exit status 1\)"):
        run(tiny, tmp_path, 2)
    killer.join()
    assert not workers()
    state = checkpoints / "checkpoint-10" / "trainer_state.json"
    noted = json.loads(state.read_text())
    noted["log_history"][0]["loss"] = 123.0  # to see that it is read
    for kept in checkpoints.glob("checkpoint-*"):
        if kept.name != "checkpoint-10":
            (kept / trainers.COMPLETE).unlink(missing_ok=True)
    state.write_text(json.dumps(noted))
    phase, history = run(tiny, tmp_path, 2)
    assert history.loss[0] == 123.0 and history[1:].equals(together[1][1:])
    name = "adapter/adapter_model.safetensors"
    assert (phase / name).read_bytes() == (together[0] / name).read_bytes()


@pytest.mark.long("cluster")
def test_what_a_worker_raises_stands_above_the_error(tiny, tmp_path, capfd):
    with pytest.raises(DistributedTrainingError, match=r"exit status 1\); what they said stands above"):
        phases.train("kto", tiny, {"kto": [row | {"label": True} for row in kto_rows()]}, params(**HOW, processes=2),
                       tmp_path, SEED, "float32")
    assert re.search(r"KTO needs both labels; got \d+ desirable and 0 undesirable", capfd.readouterr().err)


def test_another_number_of_processes_than_the_job_says_is_an_error(tmp_path):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"params": params(accumulation=2, processes=2).model_dump(mode="json")}))
    with pytest.raises(ValueError, match="training.processes: expected 2 processes, got 1"):
        launch.work(job)


def test_a_commands_output_is_passed_on_and_its_exit_status_is_in_the_error(capsys):
    launch.run_streaming([sys.executable, "-c", "print('fine')"])
    with pytest.raises(DistributedTrainingError, match=r"the workers failed \(exit status 3\); what they said"):
        launch.run_streaming([sys.executable, "-c", "print('no such row'); raise SystemExit(3)"])
    assert capsys.readouterr().err == "fine\nno such row\n"


def test_ctrl_c_ends_the_launcher_and_what_it_started(monkeypatch):
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); " \
           "print('started', flush=True); time.sleep(99)"
    others, began = psutil.Process().children(recursive=True), []  # other tests' sandboxes share this process

    def interrupt(text):
        began.extend(one for one in psutil.Process().children(recursive=True) if one not in others)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "END_SECONDS", 1.0)
    monkeypatch.setattr(sys.stderr, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch.run_streaming([sys.executable, "-c", code])
    assert len(began) >= 2
    assert not [process for process in began if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.long("cluster")
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed; make setup brings it")
def test_validation_is_shared_out_and_one_process_reports(tiny, together, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how = params(**HOW, processes=2, max_steps=4, validate_steps=3, keep="best", report_to="tensorboard")
    asked = [{"instruction_id": f"k{n}", "prompt": f"ask {n}?\n", "tests": ["assert f() == 1"], "reference": "def f(): return 1"}
             for n in range(3)]
    watch = Watch(Params(name="two", sampling={"max_tokens": 8}), asked)
    adapter, history = phases.train("kto", tiny, all_rows(), how, tmp_path, SEED, "bfloat16", "the policy", watch)
    assert history.loss.tolist() == together[1].loss[:4].tolist()
    ended = phases.outcome(adapter, "kto")
    assert [one["step"] for one in ended["validation"]] == [0, 3, 4] and ended["kept_step"] == 3
    files = [path for path in (tmp_path / "tensorboard").rglob("*") if path.is_file()]
    assert [path.parent.name for path in files] == ["two-kto-seed3"]
    assert [event.step for event in EventAccumulator(str(files[0].parent)).Reload().Scalars("eval/pass@1")] == [0, 3, 4]


# --- other kinds ------------------------------------------------------------------------------------------------------

@pytest.mark.long("cluster")
def test_a_policy_that_is_shared_out_trains_as_whole_copies_do(tiny, together, tmp_path):
    """FSDP2 over 4-bit weights, by the file for GPUs: each process holds half of the bytes."""
    config = str(ROOT / "params" / "accelerate" / "fsdp_qlora.yaml")
    phase, history, ranks = probed(tiny, tmp_path, accelerate_config=config)
    assert history.loss.tolist() == pytest.approx(together[1].loss.tolist(), abs=1e-4)
    trained, whole = (load_file(one / "adapter" / "adapter_model.safetensors") for one in (phase, together[0]))
    assert {name: item.shape for name, item in trained.items()} == {name: item.shape for name, item in whole.items()}
    sizes = [one["bytes"] for one in ranks]
    assert sum(sizes) == together[2][0]["bytes"] and max(sizes) < 0.52 * sum(sizes)


@pytest.mark.long("cluster")
def test_the_reference_computed_before_training_reaches_every_process(tiny, together, tmp_path):
    _, history = run(tiny, tmp_path, 2, precompute_reference=True, max_steps=4)
    assert history.loss.tolist() == pytest.approx(together[1].loss[:4].tolist(), rel=1e-3)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_file_is_one_that_accelerate_reads_and_casts_nothing(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no" and not config.use_cpu
    assert str(config.distributed_type.value) in ("MULTI_GPU", "FSDP")
    command = launch_command(params(accumulation=16, processes=16, accelerate_config=str(path)), Path("job.json"))
    assert command[command.index("--config_file") + 1] == str(path)
    assert command[command.index("--num_processes") + 1] == "16"
    assert ("--main_process_port" in command) == (config.num_machines == 1)


def test_a_config_file_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="training.accelerate_config: no such file: .*nowhere.yaml"):
        launch_command(params(accumulation=2, processes=2, accelerate_config="nowhere.yaml"), Path("job.json"))
