"""One finished run, as its result file tells it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sar_train.config.run import ELSEWHERE, OF_SAR
from sar_train.report import published

APART = {"seed", "sections", "schedule", "epochs", "learning_rate", "batch_size", *ELSEWHERE}
"""Keys of ``config`` that are said elsewhere or that no result depends on."""
SAR = "+sar"
"""What the names of rows with SAR contain."""


@dataclass(frozen=True)
class Result:
    """One finished run: the content of its file, with the values that tables are sorted by.

    Attributes:
        path: below the folder that was read.
        modified: the file's time.
        content: the parsed JSON, checked for what is used everywhere.
        variant: what tells it from runs of the same name with other settings, empty for most.
        sar_variant: the same, for settings of SAR.
    """

    path: Path
    modified: float
    content: dict[str, Any]
    variant: str = ""
    sar_variant: str = ""

    def __getitem__(self, key: str) -> Any:
        """A value of the file, None where it has none."""
        return self.content.get(key)

    @property
    def protocol(self) -> str:
        """One of `PROTOCOLS`."""
        return str(self["protocol"])

    @property
    def name(self) -> str:
        """The row of a table."""
        return _named(str(self["name"]), self.variant, self.sar_variant)

    @property
    def partner(self) -> str:
        """The row of the same method without SAR."""
        return _named(str(self["name"]).replace(SAR, ""), self.variant)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self["seed"])

    @property
    def shots(self) -> int:
        """Photos per class, 0 for all."""
        return int(self["config"]["shots"])

    @property
    def dataset(self) -> str:
        """What was trained on."""
        return str(self["dataset"]["name"])

    @property
    def backbone(self) -> str:
        """Name of the backbone, with its weights where it needs any."""
        pretrained = self["config"].get("pretrained")
        return str(self["backbone"]["name"]) + (f" ({Path(pretrained).name})" if pretrained else "")

    @property
    def finished(self) -> str:
        """When, in UTC, as ISO 8601 has it; empty where the file does not say."""
        return str(self["finished"] or "")

    @property
    def code(self) -> str:
        """Digest of the code that made it."""
        return str((self["code"] or {}).get("digest") or "unknown")

    @property
    def folder(self) -> Path:
        """The sweep's folder: that of the file, or the one above where that is the dataset's."""
        parent, data = self.path.parent, str(self["config"].get("data") or "")
        own = re.sub(r"[^A-Za-z0-9.+_-]+", "-", data).strip("-.") or self.dataset
        return parent.parent if parent.name in (own, self.dataset) else parent

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings by dotted name, defaults included."""
        config = self["config"]
        apart = APART if config.get("sar") else APART | {*OF_SAR}
        plain = {key: value for key, value in config.items() if key not in apart}
        sections = {
            f"{name}.{key}": value for name, part in (self["settings"] or {}).items() for key, value in part.items()
        }
        return plain | dict(config.get("schedule") or {}) | sections

    def identity(self) -> str:
        """Equal for runs that should have come out the same."""
        folder = self.folder.as_posix() if self.protocol == "custom" else ""
        what = [self.protocol, folder, self["name"], self.settings, self.backbone, self.dataset, self.seed]
        return json.dumps(what, sort_keys=True)


def comparable(run: Result) -> bool:
    """Whether a run was on the published split with all its photos, or on data of which nothing is published."""
    config, origin = run["config"], run["dataset"].get("split_origin", "published")
    if not published.of_dataset(run.dataset):
        return True
    return origin != "ours" and not config.get("allow_missing") and not config.get("skip_unreadable")


def _named(name: str, *variants: str) -> str:
    shown = ", ".join(variant for variant in variants if variant)
    return f"{name} ({shown})" if shown else name


def is_of_sar(setting: str) -> bool:
    """Whether a setting means nothing without SAR."""
    return setting in OF_SAR or setting == "sar" or setting.startswith("sar.")


def differing_settings(runs: list[Result]) -> list[str]:
    """Names of settings that are not the same in all runs, in the order of the first that has them."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({json.dumps(run.settings.get(key)) for run in runs}) > 1]
