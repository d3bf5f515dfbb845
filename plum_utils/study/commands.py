"""``python -m plum_utils run|check|lab|list|status|report|search|export|plan``: the study from the command line."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from plum_utils.jsonl import DiskFull
from plum_utils.models.number_types import number_type
from plum_utils.models.weights import ModelNotFound
from plum_utils.params import Params, ParamsError, load_params
from plum_utils.provenance import ROOT, portable
from plum_utils.runs import Run
from plum_utils.sandbox import SandboxError
from plum_utils.stages import STAGES, Stage
from plum_utils.study.batches import execute, execute_rounds
from plum_utils.study.check import check, sandbox, stops, table
from plum_utils.study.devices import why_none
from plum_utils.study.export import CONVERTER, ExportError, export_policy
from plum_utils.study.forecast import announce
from plum_utils.study.page import write_html, write_report
from plum_utils.study.pipeline import NotReady, Pipeline, RunLocked, StageFailed
from plum_utils.study.report import NoResults, write_results
from plum_utils.study.sweep_page import listing, write_rounds_report, write_sweep_report
from plum_utils.study.sweeps import Experiment, Sweep, is_sweep, load_sweep, of_row, round_folder, sweep_of_table
from plum_utils.study.weak_hosts import check_host


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a stage failed), 2 (bad input) or 130 (interrupted)."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return arguments.action(arguments) or 0
    except (ParamsError, NotReady, RunLocked, NoResults, ExportError, SandboxError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StageFailed, DiskFull) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    weak, places, settings, blind = (argparse.ArgumentParser(add_help=False) for _ in range(4))
    weak.add_argument("--allow-weak-sandbox", action="store_true", help="run the model's programs although this host "
                      "cannot deny them network and files; as -p sandbox.allow_weak=true")
    places.add_argument("--run-dir", type=Path, help="default: outputs/<name of the parameters>; for a sweep, or several "
                        "files, the folder of the runs' folders, by default outputs/")
    places.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="default: notebooks/")
    settings.add_argument("-p", dest="overrides", action="append", default=[], metavar="key=value",
                          help="override a parameter, e.g. -p training.learning_rate=1e-4")
    blind.add_argument("--no-check", action="store_true", help="start whatever `check` would say")
    parser = argparse.ArgumentParser(prog="python -m plum_utils", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, action: Any, text: str, *parents: argparse.ArgumentParser, params: str = ""
                ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, parents=parents)
        added.set_defaults(action=action)
        if params:
            added.add_argument("params", type=Path, help=params)
        return added

    run = command("run", _run, "run the notebooks that are not up to date", weak, places, settings, blind)
    run.add_argument("params", type=Path, nargs="*", help="a run's parameters or a sweep file; several are run one after "
                     "another, and one that fails does not stop the others")
    run.add_argument("--table", metavar="N", help="the sweep of this table of the paper (2, figure3, settings, ...)")
    run.add_argument("--row", type=int, metavar="K", help="of a sweep only its K-th run: for an array of jobs, a row each")
    run.add_argument("--dry", action="store_true", help="everything but weights and data: tiny models of the real "
                     "architectures, fitted to the task in seconds, and a few rows in the data sets' real formats")
    run.add_argument("--from", dest="first", metavar="NN", help="start at this stage (01 to 06)")
    run.add_argument("--until", dest="last", metavar="NN", help="end with this stage")
    run.add_argument("--only", metavar="NN", help="only this stage")
    run.add_argument("--force", action="store_true", help="run again from nothing, up to date or not")
    command("check", _check, "what a run needs and this machine lacks, and how long it takes; `run` asks it first", weak,
            places, settings, params="a run's parameters, or a sweep file")
    listing = command("list", _list, "the experiments by table, and which have been run")
    listing.add_argument("folder", type=Path, nargs="?", default=ROOT / "params", help="default: params/")
    either = "a parameter file, or a run's folder"
    command("status", _status, "which stages are up to date", places, settings, params=either)
    report = command("report", _report, "write report.md with all tables and figures", places, settings, params=either)
    report.add_argument("--readme", type=Path, metavar="FILE", help="also write the results into this file, between "
                        "its markers")
    command("search", _search, "choose training parameters on the validation instructions", weak, places, settings,
            blind, params="a parameter file with data.validation_fraction and search.candidates")
    export = command("export", _export, "write a trained policy, merged, with its tokenizer and a model card, or the "
                     "preference set; push it to a hub", places, settings, params=either)
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the new folder")
    export.add_argument("--dataset", action="store_true", help="the preference set with a data card, not a policy")
    export.add_argument("--push-to-hub", metavar="REPO", help="then upload the folder to this repository, which is made if it "
                        "is not there; given again after an interruption it goes on")
    export.add_argument("--public", action="store_true", help="make the repository public; default: private")
    export.add_argument("--policy", metavar="NAME", help="as kto-seed0; default: the first one that the run trained")
    export.add_argument("--force", action="store_true", help="replace the folder if it is there")
    export.add_argument("--gguf", action="store_true", help="also write a GGUF file, with llama.cpp's converter")
    export.add_argument("--gguf-converter", metavar="PATH", default=CONVERTER, help="default: %(default)s")
    plan = command("plan", _plan, "what training needs of a card's memory, what is chosen for it, and how long a run "
                   "takes here", settings, params="a parameter file")
    plan.add_argument("--gpu-gb", type=float, metavar="GB", help="the card's size; default: this machine's card, else "
                      "24, 48 and 80")
    lab = command("lab", _lab, "open the lessons in JupyterLab")
    lab.add_argument("options", nargs="*", metavar="-- option", help="handed on to JupyterLab, as: lab -- --port=9000")
    return parser


def _pipeline(arguments: argparse.Namespace) -> Pipeline:
    overrides = _overrides(arguments)
    if arguments.params.is_dir():
        if overrides:
            raise ParamsError("-p: give a parameter file to override, not a run's folder")
        run = Run(arguments.params)
        return Pipeline(_recorded_params(run), run, arguments.notebooks)
    params = load_params(arguments.params, overrides)
    return Pipeline(params, Run(arguments.run_dir or ROOT / "outputs" / params.name), arguments.notebooks)


def _recorded_params(run: Run) -> Params:
    recorded = run.manifest().get("params")
    if recorded is None:
        raise ParamsError(f"{run.path}: no run's folder (its manifest.json is missing); give a parameter file")
    return Params.model_validate(recorded)


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    accepted = {"sandbox.allow_weak": True} if getattr(arguments, "allow_weak_sandbox", False) else {}
    return dict(_override(text) for text in arguments.overrides) | accepted


def _override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ParamsError(f"-p {text}: expected key=value, e.g. -p sampling.k=10")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ParamsError(f"-p {text}: the value is not YAML; quote it") from None


def _chosen(arguments: argparse.Namespace) -> list[Stage]:
    numbers = {stage.number: place for place, stage in enumerate(STAGES)}
    for given in (arguments.first, arguments.last, arguments.only):
        if given is not None and given[:2] not in numbers:
            raise ParamsError(f"unknown stage {given!r}: expected one of {', '.join(numbers)}")
    first, last = arguments.only or arguments.first or "01", arguments.only or arguments.last or "06"
    if first[:2] > last[:2]:
        raise ParamsError(f"--from {first} comes after --until {last}: no stage is left to run")
    return list(STAGES[numbers[first[:2]]:numbers[last[:2]] + 1])


def _refuse_some_stages(arguments: argparse.Namespace, why: str) -> None:
    if arguments.first or arguments.last or arguments.only:
        raise ParamsError(f"--from, --until, --only: {why}")


def _run(arguments: argparse.Namespace) -> int:
    paths = _what_to_run(arguments)
    return _run_one(arguments, paths[0]) if len(paths) == 1 else _run_several(arguments, paths)


def _run_several(arguments: argparse.Namespace, paths: list[Path]) -> int:
    _refuse_some_stages(arguments, "several files decide themselves which stages they need")
    loaded = [load_sweep(path, _overrides(arguments)) if is_sweep(path) else load_params(path, _overrides(arguments))
              for path in paths]  # a broken file stops all, before hours have passed
    failed = []
    for path, one in zip(paths, loaded):
        print(f"##### {portable(path)}", flush=True)
        alone = argparse.Namespace(**vars(arguments))
        if isinstance(one, Params) and not arguments.dry:
            alone.run_dir = (arguments.run_dir or ROOT / "outputs") / one.name
        try:
            failed += [path] if _run_one(alone, path) else []
        except (StageFailed, NotReady, RunLocked) as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failed.append(path)
    print(f"{len(paths) - len(failed)} of {len(paths)} files ran to their end"
          + "".join(f"; not {portable(path)}" for path in failed), flush=True)
    return int(bool(failed))


def _run_one(arguments: argparse.Namespace, path: Path) -> int:
    if arguments.row is not None and not is_sweep(path):
        raise ParamsError(f"--row: {path} is no sweep, so it has no rows")
    if arguments.dry or is_sweep(path):
        return _run_sweep(arguments, path)
    arguments.params = path
    pipeline, chosen = _pipeline(arguments), _chosen(arguments)
    check_host([pipeline.params], chosen)
    rounds = pipeline.params.rounds > 1
    first = replace(pipeline, run=Run(pipeline.run.path / round_folder(1))) if rounds else pipeline
    _look_first(arguments, [first], chosen, arguments.force)
    if rounds:
        _refuse_some_stages(arguments, "rounds run all stages; give one round's folder and parameters instead")
        runs = execute_rounds(pipeline.params, pipeline.run.path, arguments.notebooks, arguments.force)
        print(f"report: {write_rounds_report(pipeline.params, pipeline.run, runs)}")
        return 0
    pipeline.execute(chosen, arguments.force)
    print(f"report: {write_report(pipeline.run)}, {write_html(pipeline.run)}")
    return 0


def _look_first(arguments: argparse.Namespace, pipelines: list[Pipeline], chosen: list[Stage], force: bool = False
                ) -> None:
    """Print what ``check`` finds to mend.

    Raises:
        NotReady: something that it needs is missing.
    """
    if arguments.no_check:
        return
    found = [one for one in check(pipelines, chosen, force) if one.mend]
    if found:
        print(table(found), flush=True)
    if stops(found):
        raise NotReady("nothing was started; mend what the table's first lines say, or start all the same by --no-check")


def _check(arguments: argparse.Namespace) -> int:
    path = _no_folder(arguments.params, "check")
    pipelines, chosen = _pipelines(arguments, path)
    found = [sandbox([line.params for line in pipelines]), *check(pipelines, chosen)]
    print(table(found), flush=True)
    for line in pipelines:
        if len(pipelines) > 1:
            print(f"{portable(line.run.path)}: ", end="")
        announce(line, chosen)
    return int(stops(found))


def _pipelines(arguments: argparse.Namespace, path: Path) -> tuple[list[Pipeline], list[Stage]]:
    """The runs of a parameter file or of a sweep, and the stages that they need."""
    if not is_sweep(path):
        return [_pipeline(arguments)], list(STAGES)
    sweep, experiments = load_sweep(path, _overrides(arguments))
    return _of_sweep(sweep, experiments, arguments)


def _of_sweep(sweep: Sweep, experiments: list[Experiment], arguments: argparse.Namespace
              ) -> tuple[list[Pipeline], list[Stage]]:
    outputs = arguments.run_dir or ROOT / "outputs"
    runs = [Pipeline(one.params, Run(outputs / one.folder), arguments.notebooks) for one in experiments]
    return runs, [stage for stage in STAGES if stage.number <= sweep.until]


def _what_to_run(arguments: argparse.Namespace) -> list[Path]:
    if bool(arguments.params) == (arguments.table is not None):
        raise ParamsError("run: give parameter files, sweep files, or --table N, and only one of them")
    if len(arguments.params) > 1 and arguments.row is not None:
        raise ParamsError("--row: give one sweep file, whose row it is")
    return [_no_folder(path, "run") for path in arguments.params or [sweep_of_table(arguments.table)]]


def _no_folder(path: Path, command: str) -> Path:
    if path.is_dir():
        raise ParamsError(f"{path}: {command} takes a parameter file, not a folder")
    return path


def _run_sweep(arguments: argparse.Namespace, path: Path) -> int:
    _refuse_some_stages(arguments, "a sweep decides itself which stages its runs need")
    overrides = _overrides(arguments)
    if arguments.dry:
        from plum_utils.study.dry import dry_run

        return dry_run(path, arguments.run_dir or ROOT / "outputs" / "dry", overrides, arguments.notebooks, arguments.row)
    sweep, experiments = load_sweep(path, overrides)
    chosen = of_row(experiments, arguments.row)
    check_host([one.params for one in chosen])
    _look_first(arguments, *_of_sweep(sweep, chosen, arguments), arguments.force)
    outputs = arguments.run_dir or ROOT / "outputs"
    failures = execute(sweep, chosen, outputs, arguments.notebooks, arguments.force)
    print(f"report: {write_sweep_report(sweep, experiments, outputs, path.stem, failures)}")
    return 1 if failures else 0


def _list(arguments: argparse.Namespace) -> None:
    if not arguments.folder.is_dir():
        raise ParamsError(f"{arguments.folder}: list takes a folder of parameter files, by default params/")
    print(listing(arguments.folder, ROOT / "outputs"))


def _status(arguments: argparse.Namespace) -> None:
    pipeline = _pipeline(arguments)
    entries = pipeline.run.manifest()["stages"]
    for stage in STAGES:
        state, why = pipeline.state(stage)
        seconds = entries.get(stage.name, {}).get("seconds")
        print(f"{stage.name:24}{state:14}{f'{seconds:.0f} s' if seconds is not None else '-':>8}  {why}")


def _report(arguments: argparse.Namespace) -> None:
    if arguments.params.is_file() and is_sweep(arguments.params):
        sweep, experiments = load_sweep(arguments.params, _overrides(arguments))
        print(write_sweep_report(sweep, experiments, arguments.run_dir or ROOT / "outputs", arguments.params.stem, {}))
        return
    run = _pipeline(arguments).run
    print(write_report(run))
    write_html(run)
    if arguments.readme:
        write_results(run, arguments.readme)


def _search(arguments: argparse.Namespace) -> None:
    from plum_utils.study.search import search

    _no_folder(arguments.params, "search")
    pipeline = _pipeline(arguments)
    check_host([pipeline.params])
    _look_first(arguments, [pipeline], list(STAGES[:4]))
    pipeline.execute(list(STAGES[:3]))
    search(pipeline.params, pipeline.run)


def _plan(arguments: argparse.Namespace) -> None:
    from plum_utils.models.shapes import model_config
    from plum_utils.training import planner

    if arguments.gpu_gb is not None and not 0 < arguments.gpu_gb < math.inf:
        raise ParamsError(f"--gpu-gb: expected more than 0, got {arguments.gpu_gb:g}")
    params = load_params(_no_folder(arguments.params, "plan"), _overrides(arguments))
    here = planner.card_memory()
    card = arguments.gpu_gb or here
    try:
        config = model_config(params.policy.model, params.policy.revision)
    except ModelNotFound as error:
        raise ParamsError(str(error)) from None
    kind = number_type(params.policy.dtype)
    print(f"{params.policy.model}, objective {params.training.objective}")
    print(f"number type here: {kind.name} ({kind.reason})" + (f"\nwarning: {kind.warning}" if kind.warning else ""))
    on_card = kind.name if here or params.policy.dtype != "auto" else "bfloat16"
    print(f"number type on the card: {on_card}" + ("" if here else " (compute capability 8.0 or higher)"))
    if not here and not arguments.gpu_gb:
        print(f"this machine has no GPU that can be used: {why_none()}\nso here are cards of "
              f"{', '.join(f'{size:g}' for size in planner.CARDS)} GB:")
    print(planner.tables(config, params.training, [card] if card else planner.CARDS, on_card))
    if arguments.gpu_gb is None:
        announce(Pipeline(params, Run(ROOT / "outputs" / params.name)), list(STAGES))


def _lab(arguments: argparse.Namespace) -> None:
    from plum_utils.study.lab import open_lab

    open_lab(arguments.options)


def _export(arguments: argparse.Namespace) -> None:
    from plum_utils.study import publish
    from plum_utils.study.export_dataset import export_dataset

    _refuse_contradictions(arguments)
    pipeline, repo = _pipeline(arguments), arguments.push_to_hub
    if repo:
        publish.check_login()
    if arguments.dataset:
        print(export_dataset(pipeline.params, pipeline.run, arguments.to, arguments.force, resume=bool(repo)))
    else:
        print(export_policy(pipeline.params, pipeline.run, arguments.to, arguments.policy, arguments.force,
                            arguments.gguf, arguments.gguf_converter, resume=bool(repo)))
    if repo:
        print(publish.push(arguments.to, repo, "dataset" if arguments.dataset else "model", arguments.public))


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    if arguments.dataset and (arguments.policy or arguments.gguf):
        raise ParamsError("--dataset: a preference set has neither policies nor a GGUF file; leave out --policy and --gguf")
    if arguments.public and not arguments.push_to_hub:
        raise ParamsError("--public: says who sees what is pushed; give --push-to-hub REPO too")
