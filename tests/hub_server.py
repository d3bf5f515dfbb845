"""A stand-in for the model hub on this machine: what its client asks when it makes a repository and uploads a folder."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml
from local_server import Handler, running

TOKEN = "hf_mine"


class Hub:
    """Repositories by ``models/<name>`` or ``datasets/<name>``; large files by SHA-256, in the order in which they came.

    ``refuse``: the next commit is answered with this status.
    """

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.uploads: list[str] = []
        self.large: dict[str, bytes] = {}
        self.refuse = 0
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict]:
        if method == "PUT":
            oid = path.rpartition("/")[2]
            self.uploads.append(oid)
            self.large[oid] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        kind, _, rest = path.removeprefix("/api/").partition("/")
        repo = f"{kind}/{'/'.join(rest.split('/')[:2])}"
        if path == "/api/whoami-v2":
            return 200, {"name": "me"}
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self.batch(one) for one in json.loads(body)["objects"]]}
        if "/preupload/" in path:
            return 200, {"files": [self.look(repo, file) for file in json.loads(body)["files"]]}
        if "/commit/" in path:
            return self.commit(repo, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"no such page: {path}"}

    def create(self, asked: dict) -> tuple[int, dict]:
        owner = asked["organization"] or "me"
        repo, url = f"{asked.get('type', 'model')}s/{owner}/{asked['name']}", f"{self.url}/{owner}/{asked['name']}"
        if owner != "me":
            return 403, {"error": "You don't have the rights to create a repository under this namespace"}
        known = repo in self.private
        self.private.setdefault(repo, asked["visibility"] == "private")
        self.files.setdefault(repo, {})
        return (409, {"error": "You already created this repository", "url": url}) if known else (200, {"url": url})

    def batch(self, asked: dict) -> dict:
        upload = {"actions": {"upload": {"href": f"{self.url}/large/{asked['oid']}"}}}
        return {"oid": asked["oid"], "size": asked["size"]} | ({} if asked["oid"] in self.large else upload)

    def look(self, repo: str, file: dict) -> dict:
        there = self.files[repo].get(file["path"])
        return {"path": file["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "oid": there and hashlib.sha1(b"blob %d\0" % len(there) + there).hexdigest()}

    def commit(self, repo: str, lines: list[dict]) -> tuple[int, dict]:
        if self.refuse:
            status, self.refuse = self.refuse, 0
            return status, {"error": "not now"}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[repo][value["path"]] = self.large[value["oid"]]
        return 200, {"commitUrl": f"{self.url}/{repo.partition('/')[2]}/commit/c0ffee", "commitOid": "c0ffee"}


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Repositories(Handler):
        def asked(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = hub.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            self.reply(status, {}, content)

        do_GET = do_POST = do_PUT = asked

    with running(Repositories) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """The stand-in, which the hub's client of this process asks, logged in there; large files go by LFS, not by Xet."""
    with serving() as one:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", one.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield one
