"""What a run wants from the hub: whether each repository is there, open to this user, and has the files.

Asked by ``huggingface_hub`` itself, and only about what is not in its cache: nothing is downloaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Iterator

from plum_utils.data.hub import HUB_SETS
from plum_utils.data.livecodebench import RELEASES
from plum_utils.models.weights import BESIDE, WEIGHTS
from plum_utils.params import Params
from plum_utils.progress import one_line
from plum_utils.provenance import ROOT

SECONDS = 10.0  # for an answer of the hub


@dataclass(frozen=True)
class Wanted:
    """A repository; ``key`` is the parameter that names it, ``files`` are those of a data set that are read."""

    key: str
    repo: str
    kind: str  # "model" or "dataset"
    revision: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What there is, and where something is wrong its mend; ``size``: bytes that will be downloaded."""

    found: str
    mend: str = ""
    size: int = 0


def hub_sources(params: Params) -> dict[str, tuple[str, str | None, str]]:
    """By parameter what a run asks a model hub for: repository, revision and kind (``model`` or ``dataset``)."""
    found: dict[str, tuple[str, str | None, str]] = {
        "policy.model": (params.policy.model, params.policy.revision, "model"),
        "livecodebench.source": (params.livecodebench.source, None, "dataset")}
    if params.generator.live_instructions:
        found["generator.live_model"] = params.generator.live_model, None, "model"
    if params.generator.backend == "vllm":
        found["generator.model"] = params.generator.model, None, "model"
    if params.data.train in HUB_SETS:
        found["data.train"] = (params.data.source or HUB_SETS[params.data.train].repo, params.data.revision, "dataset")
    return {key: one for key, one in found.items()
            if not one[0].startswith("embedded:") and one[0] != "bundled" and not (ROOT / one[0]).exists()}


def commits(params: Params) -> dict[str, str]:
    """By parameter the commit that a repository's revision (``main``, where none is given) stands for in the hub's cache;
    none, where it was not fetched or cannot be told."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    found: dict[str, str] = {}
    for key, (name, revision, kind) in hub_sources(params).items():
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
        named, there = folder / "refs" / (revision or "main"), [path.name for path in folder.glob("snapshots/*")]
        if named.is_file():
            found[key] = named.read_text().strip()
        elif revision and revision in there:
            found[key] = revision
        elif revision is None and len(there) == 1:  # datasets fetches by commit, and names none
            found[key] = there[0]
    return found


def wanted(p: Params, todo: set[str]) -> Iterator[Wanted]:
    """What the lessons ``todo`` (``01`` ...) would fetch from the hub; nothing for embedded models and local files."""
    files = {"livecodebench.source": tuple(RELEASES.get(p.livecodebench.release, ()))}
    if p.data.train in HUB_SETS:
        files["data.train"] = HUB_SETS[p.data.train].files
    read = {"policy.model": True, "generator.model": "01" in todo, "generator.live_model": "01" in todo,
            "data.train": p.data.source is None and bool(todo - {"06"}),
            "livecodebench.source": "06" in todo or p.data.decontaminate}
    for key, (repo, revision, kind) in hub_sources(p).items():
        if read[key]:
            yield Wanted(key, repo, kind, revision, files.get(key, ()))


@cache
def ask(what: Wanted) -> Answer:
    """The hub's answer, or the cache's where all is there already."""
    if _in_cache(what):
        return Answer(f"{what.repo} is in the cache")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = huggingface_hub.HfApi()
    info = api.model_info if what.kind == "model" else api.dataset_info
    try:
        told = info(what.repo, revision=what.revision, files_metadata=True, timeout=SECONDS)
        if told.gated:
            api.auth_check(what.repo, repo_type=what.kind)
    except GatedRepoError:  # a kind of RepositoryNotFoundError
        page = f"{api.endpoint}/{'datasets/' if what.kind == 'dataset' else ''}{what.repo}"
        return Answer(f"{what.repo} is gated, and this user has not been let in",
                      f"accept its terms at {page}, then `hf auth login` (or set HF_TOKEN)")
    except RevisionNotFoundError:
        return Answer(f"{what.repo} has no revision {what.revision!r}", f"mend {what.key.partition('.')[0]}.revision")
    except RepositoryNotFoundError:
        return Answer(f"the hub has no {what.kind} {what.repo}, or it is private",
                      f"mend {what.key}, or `hf auth login` (or set HF_TOKEN) as one who may read it")
    except Exception as error:  # the network's, a proxy's, HF_HUB_OFFLINE
        return Answer(f"{what.repo} is not in the cache, and {api.endpoint} does not answer "
                      f"({type(error).__name__}: {one_line(error, 80)})",
                      "mend the connection, HF_ENDPOINT or HF_HUB_OFFLINE; or fetch it elsewhere and give its folder: "
                      + {"data.train": "data.source"}.get(what.key, what.key))
    sizes = {file.rfilename: file.size or 0 for file in told.siblings or []}
    return _model(what, sizes) if what.kind == "model" else _data(what, sizes)


def _model(what: Wanted, sizes: dict[str, int]) -> Answer:
    weights = _weights(list(sizes))
    needs = {"config.json": "config.json" in sizes, "weights (safetensors or .bin)": weights,
             "tokenizer.json": "tokenizer.json" in sizes}
    lacks = [name for name, there in needs.items() if not there]
    if lacks:
        return Answer(f"{what.repo} has no {' and no '.join(lacks)}", f"give another repository as {what.key}")
    taken = weights + [name for name in sizes if any(fnmatch(name, pattern) for pattern in BESIDE)]
    size = sum(sizes[name] for name in taken)
    return Answer(f"{what.repo}: {size / 1e9:.1f} GB to download, {Path(weights[0]).suffix[1:]}", size=size)


def _data(what: Wanted, sizes: dict[str, int]) -> Answer:
    missing = [name for name in what.files if name not in sizes]
    if missing:
        return Answer(f"{what.repo} has no {', '.join(missing)}", f"mend {what.key} or its revision")
    size = sum(sizes[name] for name in what.files)
    return Answer(f"{what.repo}: {size / 1e9:.1f} GB to download", size=size)


def _weights(names: list[str]) -> list[str]:
    """The weights' files of the first format that there is."""
    kinds = ([name for name in names if fnmatch(name, pattern)] for pattern in WEIGHTS)
    return next((kind for kind in kinds if kind), [])


def _in_cache(what: Wanted) -> bool:
    """Whether all files are there; of a model the weights, those that its index lists."""
    found = {name: _cached(what, name) for name in what.files or ("config.json", "tokenizer.json")}
    if not all(found.values()):
        return False
    return what.kind == "dataset" or _is_whole(Path(str(found["config.json"])).parent)


def _cached(what: Wanted, name: str) -> Any:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(what.repo, name, revision=what.revision, repo_type=what.kind)
    return path if isinstance(path, str) else None


def _is_whole(folder: Path) -> bool:
    names = _weights([path.name for path in folder.iterdir()])
    indices = [json.loads(path.read_text()) for path in folder.glob("*.index.json")
               if path.name.startswith(("model.", "pytorch_model."))]
    return bool(names) and (not indices or any(set(index["weight_map"].values()) <= set(names) for index in indices))
