"""One run of an experiment: settings in, one JSON file out; its name depends on all settings, the seed and the code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from sar_train.config.run import ELSEWHERE, RunConfig
from sar_train.data.dataset import DEMO
from sar_train.data.opening import locate
from sar_train.data.readers.base import files_in
from sar_train.data.readers.lists import METADATA
from sar_train.regularisers.base import regularisers
from sar_train.training.identity import file_digest, outcome_settings

Experiment = Literal["base-to-new", "few-shot", "cross-dataset", "domain-generalisation", "custom"]


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        experiment: the protocol it belongs to, ``custom`` for a sweep file's own.
        name: of its row in a table, the same for all seeds, such as ``coop+sar``.
        config: the settings, seed included.
        targets: further datasets that the prompt is evaluated on.
    """

    experiment: Experiment
    name: str
    config: RunConfig
    targets: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return all that the result depends on, except code and photos."""
        mine = {"experiment": self.experiment, "targets": list(self.targets)}
        return mine | outcome_settings(self.config)

    @functools.cached_property
    def photos(self) -> dict[str, str]:
        """Return a digest by name of the user's own folders among data and targets, and of targets that are files."""
        root = Path(self.config.data_root) if self.config.data_root else None
        located = {name: locate(name, root) for name in (self.config.data, *self.targets) if name != DEMO}
        folders = {n: contents(path) for n, (path, dataset_key) in located.items() if not dataset_key and path.is_dir()}
        files = {name: file_digest(name, self.config.data_root) for name in self.targets if name not in folders}
        return folders | {name: digest for name, digest in files.items() if digest}

    def key(self, code: str | None) -> str:
        """Return 16 hex digits that differ wherever a setting, the seed, own photos or the code (`code.digest`) do."""
        photos = {"photos": self.photos} if self.photos else {}
        content = json.dumps(self.settings() | {"code": code} | photos, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def path(self, code: str | None) -> Path:
        """Return the result's path below the sweep's folder."""
        return self.folder / f"{self.stem}-{self.key(code)}.json"

    @property
    def folder(self) -> Path:
        """Return the folder of one dataset's results."""
        return Path(slug(self.config.data))

    @property
    def stem(self) -> str:
        """Return the readable part of a file name, such as ``coop+sar-16shots-s1``; the key identifies the run."""
        shots = f"{self.config.shots}shots" if self.config.shots else "all"
        return f"{slug(self.name)}-{shots}-s{self.config.seed}"

    def toml(self) -> str:
        """Return a file for ``sar-experiment run`` that repeats this run."""
        config = dataclasses.asdict(self.config)
        off = () if self.config.sar else regularisers.entries
        sections = {k: dict(v) for k, v in config.pop("sections").items() if k not in off}
        defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
        drop = (*ELSEWHERE, "seed", "sections")
        run = {k: v for k, v in config.items() if k not in drop and v is not None and v != defaults[k]}
        content: dict[str, Any] = {"experiment": self.experiment, "seeds": [self.config.seed]}
        if self.targets:
            content["targets"] = list(self.targets)
        return tomli_w.dumps(content | {"runs": {self.name: run | sections}})


@functools.cache
def contents(folder: Path) -> str:
    """Digest the names and sizes of a folder's files and the content of its lists of labels, once in a process."""
    sha256 = hashlib.sha256()
    for path in sorted(map(Path, files_in(folder))):
        content = path.read_bytes() if path.name in METADATA else str(path.stat().st_size).encode()
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")
        sha256.update(name + b"\0" + hashlib.sha256(content).digest())
    return sha256.hexdigest()[:16]


def slug(text: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", text.removesuffix("/")).strip("-.") or "data"
