"""What a run needs and this machine lacks, before lesson 01: all of it at once, each with its mend.

For embedded models and bundled data no network is asked, but for evalplus' data where it is missing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Iterator

from tabulate import tabulate

from plum_utils.data import evalplus
from plum_utils.data.hub import HUB_SETS, HubUnavailable, local_files
from plum_utils.data.livecodebench import LiveCodeBenchUnavailable, paths_of
from plum_utils.jsonl import JsonlError
from plum_utils.models.number_types import number_type
from plum_utils.params import GeneratorParams, Params, ParamsError
from plum_utils.provenance import ROOT
from plum_utils.sandbox import SandboxError
from plum_utils.stages import Stage
from plum_utils.study import devices, hub_access
from plum_utils.study.forecast import count_instructions, known_config, known_shape, known_times
from plum_utils.study.loads import loads
from plum_utils.study.weak_hosts import check_host
from plum_utils.training import planner
from plum_utils.training.memory import DTYPE_BYTES, GIB, Shape

LARGEST_ON_CPU = 3e9  # parameters; assumed: above, a lesson takes days on any CPU
A_TOKEN = 5           # bytes of text, generously
COPIES = 4            # a sample lies in a shard, in samples.jsonl, with its verdict, and in a set that is trained on
ADAPTERS = 7          # of a seed, in adapters' size: its own, and two checkpoints with Adam's two moments


@dataclass(frozen=True)
class Finding:
    """One line of the table; without a ``mend`` all is well. Where it ``stops``, no lesson starts."""

    about: str
    found: str
    mend: str = ""
    stops: bool = False


def check(pipelines: list[Any], chosen: list[Stage], force: bool = False) -> list[Finding]:
    """What is found for the stages that would run, of one run or of all runs of a sweep; nothing where none would.

    evalplus' data is fetched here, for what is there decides which stages are up to date.
    """
    found: list[Finding] = []
    for line in pipelines:
        data = list(_evalplus(line.params, chosen))
        todo = {number for number, seconds in known_times(line, chosen, force).items() if seconds != 0}
        if todo:
            found += [*data, *_findings(line.params, todo, line.run.path)]
    return list(dict.fromkeys(found))


def stops(found: list[Finding]) -> bool:
    return any(one.stops for one in found)


def table(found: list[Finding]) -> str:
    """The findings as lines for a terminal of 120 columns, what stops first."""
    ordered = sorted(found, key=lambda one: (not one.stops, not one.mend))
    rows = [["STOP" if one.stops else "note" if one.mend else "ok", one.about, one.found, one.mend] for one in ordered]
    return tabulate(rows, ["", "of", "found", "what to do"], tablefmt="simple", maxcolwidths=[None, 14, 44, 46])


def sandbox(params: list[Params]) -> Finding:
    """Whether this host can confine the model's programs (``run`` asks ``check_host`` itself)."""
    try:
        check_host(params)
        return Finding("sandbox", "the model's programs are confined, or their host's weakness is accepted")
    except SandboxError as error:
        return Finding("sandbox", str(error).partition("\n")[0], "a Linux container, or --allow-weak-sandbox "
                       "(docs/sandbox.md, \"Weak hosts\")", stops=True)


def _findings(p: Params, todo: set[str], folder: Path) -> Iterator[Finding]:
    answers = {what.key: hub_access.ask(what) for what in hub_access.wanted(p, todo)}
    if todo & {"02", "04", "05", "06"} or "01" in todo and p.generator.backend == "vllm":
        yield from _device(p, todo, answers["policy.model"].size if "policy.model" in answers else 0)
    yield from (Finding("hub", answer.found, answer.mend, bool(answer.mend)) for answer in answers.values())
    yield from _files(p, todo)
    yield from _disk(p, todo, folder, sum(answer.size for answer in answers.values()))
    if "01" in todo:
        yield from _generator(p)


# --- the machine ------------------------------------------------------------------------------------------------------

def _device(p: Params, todo: set[str], download: int) -> Iterator[Finding]:
    try:
        cards = devices.cards()
    except RuntimeError as error:
        yield Finding("GPU", str(error), "see nvidia-smi; another process may hold it whole", stops=True)
        return
    if not cards:
        yield _no_card(p, download)
        return
    import torch

    names = ", ".join(f"{n} x {name}" for name, n in Counter(card.name for card in cards).items())
    yield Finding("GPU", f"{names}, {f'ROCm {torch.version.hip}' if torch.version.hip else f'CUDA {torch.version.cuda}'}")
    how = p.training
    if "04" in todo and how.processes > len(cards):
        yield Finding("GPU", f"training.processes is {how.processes}, and there are {len(cards)} GPUs",
                      f"-p training.processes={len(cards)}", stops=True)
    elif len(cards) > 1 and how.processes == 1:
        yield Finding("GPU", f"{len(cards)} GPUs, of which training uses one",
                      f"-p training.processes={len(cards)} trains on all; or leave it so")
    yield from _memory(p, todo, cards[0])
    if os.environ.get("CC") is None and not shutil.which("gcc") and not shutil.which("clang"):
        yield Finding("C compiler", "none; Triton builds its launcher with one, for vLLM and for TRL's losses",
                      "install gcc (apt install gcc; conda install gcc_linux-64), or set CC", stops=True)


def _no_card(p: Params, download: int) -> Finding:
    why, there = devices.why_none(), devices.of_the_driver()
    shape = _shape(p)
    size = shape.parameters if shape else download / 2  # bfloat16
    too_large = size > LARGEST_ON_CPU
    if there:
        mend = ("install the extra gpu in place of cpu (environment.yml)" if "not compiled" in why else
                "update NVIDIA's driver, or install a torch built for its CUDA")
        found = f"{there[0]} is there, and torch cannot use it: {why}"
        return Finding("GPU", found, mend, stops=too_large)
    if too_large:
        return Finding("GPU", f"none ({why}), and the policy has {size / 1e9:.1f} billion parameters",
                       "run it where there is one; here: run --dry, or params/mini.yaml", stops=True)
    return Finding("GPU", f"none: the lessons use the CPU, in {number_type(p.policy.dtype).name}")


def _shape(p: Params) -> Shape | None:
    """The policy's, where it is known before it is downloaded."""
    try:
        return known_shape(p)
    except (ValueError, ParamsError):
        return None


def _memory(p: Params, todo: set[str], card: devices.Card) -> Iterator[Finding]:
    """Free memory against what each lesson loads."""
    try:
        found = loads(p, known_config(p), card.total / GIB / planner.USABLE, number_type(p.policy.dtype).name)
    except planner.DoesNotFit as error:
        yield Finding("GPU memory", f"lesson 04 does not fit: {error}", "a larger card, or as it says", stops="04" in todo)
        return
    except (ValueError, ParamsError) as error:
        yield Finding("GPU memory", f"what the lessons load is not known: {error}", "watch lesson 04's first steps")
        return
    for one in {load.stage: load for load in sorted(found, key=lambda load: load.taken) if load.stage[:2] in todo}.values():
        stops = one.taken > card.free or not one.fits
        mend = "a larger card" if not one.fits else (
            "end what else uses the card (nvidia-smi): an open notebook's kernel, or the generator's server, with "
            "which lesson 01 is run alone before (--until 01)")
        yield Finding("GPU memory", f"lesson {one.stage[:2]}: {one.what} takes {one.taken / GIB:.1f} GiB; {card.free / GIB:.1f} "
                      f"of {card.total / GIB:.1f} are free", mend if stops else "", stops)


def _disk(p: Params, todo: set[str], folder: Path, download: int) -> Iterator[Finding]:
    from huggingface_hub import constants

    needs: dict[int, list[tuple[str, float, Path]]] = {}
    for what, size, place in [("samples", _samples(p) if "02" in todo else 0, folder),
                              ("adapters and checkpoints", _adapters(p) if "04" in todo else 0, folder),
                              ("merged policies", _merged(p), folder),
                              ("downloads", download, Path(constants.HF_HUB_CACHE))]:
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        needs.setdefault(there.stat().st_dev, []).append((what, size, there))
    for parts in needs.values():
        place, size = parts[0][2], sum(part[1] for part in parts)
        free = shutil.disk_usage(place).free
        what = ", ".join(f"{what} {size / 1e9:.1f}" for what, size, _ in parts if size)
        found = f"{free / 1e9:.0f} GB are free, {size / 1e9:.1f} at most will be used" + (f" ({what})" if what else "")
        mend = f"make room at {place}; or --run-dir, or HF_HOME, on another disk"
        yield Finding("disk", found, "" if size <= free else mend, stops=size > free)


def _samples(p: Params) -> float:
    how = p.sampling
    try:
        n = count_instructions(p)[0]
    except ValueError:  # all of a hub data set
        return 0
    return COPIES * n * how.k * (A_TOKEN * how.max_tokens + 500)


def _merged(p: Params) -> float:
    """Each round but the last leaves the policy that the next one samples from."""
    shape = _shape(p)
    return (p.rounds - 1) * shape.parameters * DTYPE_BYTES[number_type(p.policy.dtype).name] if shape else 0


def _adapters(p: Params) -> float:
    how, shape = p.training, _shape(p)
    if shape is None:
        return 0
    if how.lora_r is None:
        return 4.0 * ADAPTERS * shape.parameters * len(how.seeds)
    trained = shape.layers * sum(how.lora_r * (inputs + outputs) for inputs, outputs, _ in shape.linears)
    return 4.0 * ADAPTERS * trained * len(how.seeds)


# --- data -------------------------------------------------------------------------------------------------------------

def _evalplus(p: Params, chosen: list[Stage]) -> Iterator[Finding]:
    """Fetches what is missing."""
    for suite in sorted(set().union(*(stage.evalplus_suites(p) for stage in chosen))):
        why, needed = evalplus.fetch(suite), p.evaluation.postprocess == "evalplus"
        asked = suite in [one.name for one in p.evaluation.suites]
        lost = "; else these columns are left out" if asked else "; else overlaps with it are not looked for"
        if why:
            yield Finding("evalplus' data", f"{evalplus.COLUMNS[suite]}: not here, and not to be had ({why})",
                          f"set {evalplus.OVERRIDES[suite]} to {evalplus.CACHED[suite]}(.gz), brought from elsewhere" +
                          ("" if needed else lost), stops=needed)
        else:
            yield Finding("evalplus' data", f"{evalplus.COLUMNS[suite]}: here")


def _files(p: Params, todo: set[str]) -> Iterator[Finding]:
    """Local files that the parameters name."""
    contests, model = ROOT / p.livecodebench.source, ROOT / p.policy.model
    if p.data.train in HUB_SETS and todo - {"06"}:
        try:
            local_files(p.data.train, p.data.source)
        except HubUnavailable as error:
            yield Finding("data", str(error), "bring the files, or mend data.source", stops=True)
    if contests.exists() and ("06" in todo or p.data.decontaminate):
        try:
            paths_of(str(contests), p.livecodebench.release)
        except LiveCodeBenchUnavailable as error:
            yield Finding("LiveCodeBench", str(error), "bring the files, or mend livecodebench.source", stops=True)
    if model.is_dir() and not (model / "config.json").exists():
        yield Finding("policy.model", f"{model} has no config.json", "give a folder of save_pretrained", stops=True)


# --- the generator ----------------------------------------------------------------------------------------------------

def _generator(p: Params) -> Iterator[Finding]:
    how = p.generator
    if how.backend == "recorded":
        return
    if how.backend == "vllm":
        there = importlib.util.find_spec("vllm") is not None
        yield Finding("generator", f"{how.model}, by vLLM in lesson 01", "" if there else
                      "install vLLM (the extra gpu or cpu), or generator.backend: openai", stops=not there)
        return
    from plum_utils.testgen.server import ResponseStore  # it loads the vendor's client

    store = ResponseStore(ROOT / how.store, how.model)
    try:
        stored = len(store.read())
    except JsonlError as error:
        yield Finding("generator", str(error), "delete that line", stops=True)
        return
    wanted = _requests(p)
    about = f"{how.model}: {wanted:,} answers, {stored:,} stored" if wanted else how.model
    if wrong := _served(how):
        start = f'start one: vllm serve {how.model} (docs/experiments.md, "The generator"); or -p generator.backend=vllm'
        mend = start if how.base_url and "cannot be reached" in wrong else "as it says, in the parameter file or by -p"
        all_there = 0 < wanted <= stored
        yield Finding("generator", f"{wrong}; {about}", mend, stops=not all_there)
    else:
        yield Finding("generator", f"{how.base_url or 'the vendor'} serves {about}{_cost(p, wanted - stored)}")


@cache
def _served(how: GeneratorParams) -> str:
    """Why the server cannot be asked for the model; empty where it can."""
    from plum_utils.testgen.server import GeneratorError, HttpBackend, ResponseStore

    try:
        HttpBackend(how, ResponseStore(ROOT / how.store, how.model)).check_model()
        return ""
    except GeneratorError as error:
        return str(error)


def _requests(p: Params) -> int:
    try:
        return count_instructions(p)[0] * p.generator.responses
    except ValueError:  # all of a hub data set
        return 0


def _cost(p: Params, missing: int) -> str:
    how = p.generator
    if missing <= 0 or how.price_prompt is None or how.price_completion is None:
        return ""
    tokens = count_instructions(p)[1] + 350  # with the generator's own prompt around it
    dollars = missing * (tokens * how.price_prompt + how.max_tokens * how.price_completion) / 1e6
    return f"; at most about ${dollars:,.0f}"
