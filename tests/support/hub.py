"""A Hugging Face hub on this machine: the part of its API that `huggingface_hub` uses for repositories of models.

Repositories, commits, trees, and files by revision; private and gated ones need the token. ONNX files are uploaded by
LFS, others inside of commits; downloads are of regular files alone. Xet is the library's business.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from support.llm import listening

TOKEN = "hf_a_token_of_these_tests"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Repository:
    """Commits as files by path, and names of commits."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Add a commit to main and return its name."""
        parts = "".join(f"{name}{_oid(content)}" for name, content in sorted(files.items()))
        oid = _sha1(f"{len(self.commits)}{parts}".encode())
        self.commits[oid] = dict(files)
        self.refs["main"] = oid
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        """The newest files."""
        return self.commits[self.refs["main"]]


@dataclass
class Hub:
    """A running hub.

    Attributes:
        url: ``HF_ENDPOINT``.
        repositories: by USER/NAME.
        objects: files uploaded by LFS, by SHA-256.
        requests: method and path of each.
        sizes: state the sizes of files.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sizes: bool = True

    def put(self, name: str, folder: Path, **changes: bytes) -> str:
        """Commit a folder as somebody else's program would, and return the commit; ``changes`` replace files."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()} | changes
        return self.repositories.setdefault(name, Repository()).commit({".gitattributes": b"", **files})


class _RefusalError(Exception):
    def __init__(self, status: int, code: str, text: str = "") -> None:
        self.answer = status, {"X-Error-Code": code, "X-Error-Message": text or code}, b"{}"


class _Call:
    """One request, and the answer to it."""

    def __init__(self, hub: Hub, method: str, path: str, token: str | None, body: bytes) -> None:
        self.hub, self.method, self.path, self.token, self.body = hub, method, path, token, body

    def answer(self) -> Answer:
        for pattern, handle in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/models/(\w+/[\w.-]+)/preupload/(.+)", self.preupload),
            (r"/(\w+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/objects/(\w+)", self.upload),
            (r"/api/models/(\w+/[\w.-]+)/commit/(.+)", self.commit),
            (r"/api/models/(\w+/[\w.-]+)/tree/(.+)", self.tree),
            (r"/api/models/(\w+/[\w.-]+)/revision/(.+)", self.info),
            (r"/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if match := re.fullmatch(pattern, self.path):
                try:
                    return handle(*(unquote(group) for group in match.groups()))
                except _RefusalError as refused:
                    return refused.answer
        return 404, {}, b"{}"

    def json(self, content: Any, status: int = 200) -> Answer:
        return status, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def create(self) -> Answer:
        self.need_token()
        request = json.loads(self.body)
        name = f"{request['organization']}/{request['name']}"
        if not name.startswith("me/"):
            raise _RefusalError(403, "Forbidden", f"You don't have the rights to create a model under {name}")
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            repository = self.hub.repositories[name] = Repository(private=request.get("visibility") == "private")
            repository.commit({".gitattributes": b"*.onnx filter=lfs\n"})
        return self.json({"url": f"{self.hub.url}/{name}"}, status)

    def validate(self) -> Answer:
        assert json.loads(self.body)["content"].startswith("---\n")
        return self.json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> Answer:
        self.need_token()
        newest = self.files(name, revision)
        files = [
            {
                "path": (path := entry["path"]),
                "uploadMode": "lfs" if (large := path.endswith(".onnx")) else "regular",
                "shouldIgnore": False,
                "oid": (_sha256 if large else _oid)(newest[path]) if path in newest else None,
            }
            for entry in json.loads(self.body)["files"]
        ]
        return self.json({"files": files})

    def batch(self, name: str) -> Answer:
        """Say where to upload the objects of https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md."""
        self.need_token()
        objects = [
            {**about, "actions": {"upload": {"href": f"{self.hub.url}/objects/{about['oid']}"}}}
            for about in json.loads(self.body)["objects"]
        ]
        return self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> Answer:
        assert _sha256(self.body) == oid
        self.hub.objects[oid] = self.body
        return self.json({})

    def commit(self, name: str, revision: str) -> Answer:
        self.need_token()
        files = dict(self.files(name, revision))
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.hub.repositories[name].commit(files)
        return self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def tree(self, name: str, revision: str) -> Answer:
        files = self.files(name, revision)
        return self.json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                for path, content in files.items()
            ]
        )

    def info(self, name: str, revision: str) -> Answer:
        files = self.files(name, revision).items()
        siblings = [{"rfilename": path} | ({"size": len(data)} if self.hub.sizes else {}) for path, data in files]
        sha = self.hub.repositories[name].refs.get(revision, revision)
        return self.json({"id": name, "sha": sha, "siblings": siblings})

    def resolve(self, name: str, revision: str, path: str) -> Answer:
        files = self.files(name, revision)
        headers = {"X-Repo-Commit": self.hub.repositories[name].refs.get(revision, revision)}
        if path not in files:
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        return 200, {**headers, "ETag": f'"{_oid(files[path])}"'}, files[path]

    def files(self, name: str, revision: str) -> dict[str, bytes]:
        """The files of a revision, for those who may see them."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.token != TOKEN):
            raise _RefusalError(401, "RepoNotFound")
        if repository.gated:
            raise _RefusalError(403, "GatedRepo")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise _RefusalError(404, "RevisionNotFound")
        return repository.commits[commit]

    def need_token(self) -> None:
        if self.token != TOKEN:
            raise _RefusalError(401, "", "Invalid credentials in Authorization header")


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append((self.command, path))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            status, headers, content = _Call(hub, self.command, path, token, body).answer()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - the names are http.server's

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as hub.url:
        yield hub


def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    """Point `huggingface_hub` and the processes started from here to a hub, with a cache of its own."""
    from huggingface_hub import constants

    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache / "hub")}
    for name, value in {**settings, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    for name, value in {  # what the library read when it was imported
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)


def _oid(content: bytes) -> str:
    return _sha1(b"blob %d\0" % len(content) + content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
