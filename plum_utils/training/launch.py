"""Training on several devices or machines: each phase as one ``accelerate launch`` of this module.

    python -m plum_utils.training.launch job.json     # in each process; ``accelerate launch`` sets its rank

The notebook's process writes a job (``job.json``, its rows beside it), launches, and waits; every worker calls the
same ``trainers.train_phase`` as a training in one process does, and the first of them writes what it writes. What is
the same as in one process and what is not stands in docs/speed.md, "Training on many GPUs".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from plum_utils.jsonl import read_jsonl, write_json, write_jsonl
from plum_utils.params import Params, TrainingParams
from plum_utils.provenance import ROOT

if TYPE_CHECKING:
    from plum_utils.training.watching import Watch

END_SECONDS = 15.0  # for the workers to end after the launcher was told to


class DistributedTrainingError(RuntimeError):
    """The workers failed."""


def launch_phase(phase: str, model_path: str, rows: list[dict[str, Any]], params: TrainingParams, phase_dir: Path,
                 seed: int, dtype: str, adapter: Path | None, policy_name: str, watch: Watch | None = None) -> None:
    """``trainers.train_phase`` in ``params.processes`` processes; their output goes to this one's ``stderr``.

    Raises:
        DistributedTrainingError: a worker failed. Checkpoints are kept: the same call goes on from the last one.
    """
    phase_dir = phase_dir.resolve()
    job, data = phase_dir / "job.json", phase_dir / "rows.jsonl"
    write_jsonl(data, rows)
    write_json(job, {"phase": phase, "model_path": str(model_path), "rows": data.name, "seed": seed, "dtype": dtype,
                     "params": params.model_dump(mode="json"), "policy_name": policy_name,
                     "adapter": str(adapter.resolve()) if adapter else None,
                     "watch": {"run": watch.run.model_dump(mode="json"), "rows": watch.rows} if watch else None})
    run_streaming(launch_command(params, job))
    job.unlink()
    data.unlink()


def launch_command(params: TrainingParams, job: Path) -> list[str]:
    """The command line that trains: on this machine's GPUs (or CPU), unless ``accelerate_config`` says otherwise.

    Raises:
        ValueError: there is no such file; a relative path counts from the repository's root.
    """
    if params.accelerate_config is None:
        how = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        one_machine = True
    else:
        from accelerate.commands.config.config_args import load_config_from_file

        config = ROOT / params.accelerate_config
        if not config.is_file():
            raise ValueError(f"training.accelerate_config: no such file: {config}; params/accelerate/ holds some")
        how = ["--config_file", str(config)]
        one_machine = load_config_from_file(str(config)).num_machines == 1
    port = ["--main_process_port", "0"] if one_machine else []  # a free one: several trainings can share a machine
    return [sys.executable, "-m", "accelerate.commands.launch", *how, "--num_processes", str(params.processes), *port,
            "-m", "plum_utils.training.launch", str(job)]


def run_streaming(command: list[str]) -> None:
    """Run a command and pass its output on as it comes, progress bars included.

    Raises:
        DistributedTrainingError: it failed.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        while piece := os.read(process.stdout.fileno(), 4096):
            sys.stderr.write(piece.decode("utf-8", "replace"))
            sys.stderr.flush()
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        process.stdout.close()
    if status:
        raise DistributedTrainingError(f"training.processes: the workers failed (exit status {status}); what they said "
                                       "stands above. Finished checkpoints are kept")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the launcher end its workers; end those that it leaves."""
    workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    _, left = psutil.wait_procs([process, *workers], timeout=END_SECONDS)
    for one in left:
        one.kill()
    psutil.wait_procs(left, timeout=END_SECONDS)


def work(job: Path) -> None:
    """One worker's part of a job.

    Raises:
        ValueError: there are more or fewer processes than ``training.processes``.
    """
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())  # first of all: it binds this process to its own device
    from plum_utils.training import trainers
    from plum_utils.training.watching import Watch

    order = json.loads(job.read_text())
    params = TrainingParams.model_validate(order["params"])
    if state.num_processes != params.processes:
        raise ValueError(f"training.processes: expected {params.processes} processes, got {state.num_processes}; start "
                         "them by `accelerate launch`, with as many on each machine as it has devices")
    given = order["watch"]
    watch = Watch(Params.model_validate(given["run"]), given["rows"]) if given else None
    trainers.train_phase(order["phase"], order["model_path"], read_jsonl(job.parent / order["rows"]), params,
                         job.parent, order["seed"], order["dtype"],
                         Path(order["adapter"]) if order["adapter"] else None, order["policy_name"], watch)
    state.destroy_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
