"""One run of an experiment: settings in, one JSON file out; its name depends on all settings, the seed and the code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from sar_train.config.run import ELSEWHERE, RunConfig
from sar_train.training.identity import outcome_settings

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
        """Return all that the result depends on, except the code."""
        mine = {"experiment": self.experiment, "targets": list(self.targets)}
        return mine | outcome_settings(self.config)

    def key(self, code: str | None) -> str:
        """Return 16 hex digits that differ wherever a setting, the seed or the code (`code.digest`) does."""
        content = json.dumps(self.settings() | {"code": code}, sort_keys=True, ensure_ascii=False)
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
        """Return the readable part of a file name, such as ``coop+sar-16shots-s1``; the key tells runs apart."""
        shots = f"{self.config.shots}shots" if self.config.shots else "all"
        return f"{slug(self.name)}-{shots}-s{self.config.seed}"

    def toml(self) -> str:
        """Return a file for ``sar-experiment run`` that repeats this run."""
        config = dataclasses.asdict(self.config)
        sections = {k: dict(v) for k, v in config.pop("sections").items() if k != "sar" or self.config.sar}
        defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
        drop = (*ELSEWHERE, "seed", "sections")
        run = {k: v for k, v in config.items() if k not in drop and v is not None and v != defaults[k]}
        content: dict[str, Any] = {"experiment": self.experiment, "seeds": [self.config.seed]}
        if self.targets:
            content["targets"] = list(self.targets)
        return tomli_w.dumps(content | {"runs": {self.name: run | sections}})


def slug(text: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", text.removesuffix("/")).strip("-.") or "data"
