"""Read results, loose and packed: which count, which were skipped, and which newer code has replaced."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sar_train.config.run import ELSEWHERE, OF_SAR
from sar_train.errors import DataError
from sar_train.report import published
from sar_train.report.packed import PROTOCOLS, loose_files, packed_runs
from sar_train.report.wording import SAR, without_sar

APART = {"seed", "sections", "schedule", "epochs", "learning_rate", "batch_size", *ELSEWHERE}
"""Keys of ``config`` that are stated elsewhere or on which no result depends."""
SCHEMA_VERSION = 1
NEEDED: dict[str, Any] = {
    "name": str, "seed": int, "config.method": str, "config.shots": int, "backbone.name": str, "dataset.name": str,
    **{f"{way}.base_accuracy": int | float for way in ("metrics", "zero_shot")},
    **{f"{way}.new_accuracy": int | float | None for way in ("metrics", "zero_shot")},
    **dict.fromkeys(("open", "relations", "settings", "similarities", "targets", "timing", "versions"), dict | None),
}  # fmt: skip
"""The kinds of what tables and figures read, by dotted key."""


@dataclass(frozen=True)
class Result:
    """One finished run: the content of its file, with the values that tables are sorted by.

    Attributes:
        path: relative to the folder that was read; of a packed one, where it lay before.
        modified: the file's modification time; 0 for a packed one.
        content: the parsed JSON, checked for the keys that every table needs.
        name: of its row in a table, with the settings that distinguish it from runs of the same name.
        partner: the row of the same method without SAR.
        protocol: one of `PROTOCOLS`.
        seed: of the run.
        shots: images per class, 0 for all.
        dataset: that it was trained on.
        backbone: its name, with its weights if it needs any.
    """

    path: Path
    modified: float
    content: dict[str, Any]
    name: str
    partner: str
    protocol: str
    seed: int
    shots: int
    dataset: str
    backbone: str

    def __getitem__(self, key: str) -> Any:
        """Return a value of the file, or None if it has none."""
        return self.content.get(key)

    @property
    def finished(self) -> str:
        """Return the time of its end in UTC as in ISO 8601; empty if the file does not say."""
        return str(self["finished"] or "")

    @property
    def code(self) -> str:
        """Return the digest of the code that made it."""
        return str((self["code"] or {}).get("digest") or "unknown")

    @property
    def folder(self) -> Path:
        """Return the sweep's folder: that of the file, or its parent if that is the dataset's."""
        parent, data = self.path.parent, str(self["config"].get("data") or "")
        of_data = re.sub(r"[^A-Za-z0-9.+_-]+", "-", data).strip("-.") or "data"
        return parent.parent if parent.name in (of_data, self.dataset) else parent

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return all settings by dotted name, defaults included."""
        config = self["config"]
        apart = APART if config.get("sar") else APART | {*OF_SAR}
        plain = {key: value for key, value in config.items() if key not in apart}
        sections = {
            f"{name}.{key}": v for name, section in (self["settings"] or {}).items() for key, v in section.items()
        }
        return plain | dict(config.get("schedule") or {}) | sections

    def identity(self) -> str:
        """Return a text that is equal for runs that should have come out the same."""
        folder = self.folder.as_posix() if self.protocol == "custom" else ""
        values = [self.protocol, folder, self["name"], self.settings, self.backbone, self.dataset, self.seed]
        return json.dumps(values, sort_keys=True)


def comparable(run: Result) -> bool:
    """Say whether a run used the published split with all its images, or a dataset without published figures."""
    config, origin = run["config"], run["dataset"].get("split_origin", "published")
    if not published.of_dataset(run.dataset):
        return True
    return origin != "ours" and not config.get("allow_missing") and not config.get("skip_unreadable")


def differing_settings(runs: Sequence[Result]) -> list[str]:
    """Return the settings that are not the same in all runs, in the order of the first run that has them."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({json.dumps(run.settings.get(key)) for run in runs}) > 1]


@dataclass(frozen=True)
class ResultSet:
    """The results in a folder.

    Attributes:
        runs: the runs that count, in the order of their file names.
        replaced: files with the settings and seed of a newer file of other code.
        copies: files with the settings, seed and code of a newer one.
        skipped: files that are not results, with the reason.
    """

    runs: tuple[Result, ...]
    replaced: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def of(self, protocol: str) -> tuple[Result, ...]:
        """Return the runs of a protocol."""
        return tuple(run for run in self.runs if run.protocol == protocol)


def read(folder: Path, *, tell: Callable[[str], None] = lambda line: None, apart: Path | None = None) -> ResultSet:
    """Read every result below a folder.

    Args:
        folder: searched to any depth, except in folders whose name begins with a dot.
        tell: called with a line for each JSON file that is not a result.
        apart: a folder to leave out: the report's.

    Raises:
        DataError: there is no such folder, no result in it, or a packed file is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    by_path: dict[Path, Result] = {}
    skipped = []
    loose = ((path, None) for path in loose_files(folder, apart))
    packed = ((path, run.result) for path, run in packed_runs(folder, apart))
    for path, content in itertools.chain(loose, packed):  # a loose file wins over a packed one of the same path
        if path in by_path:
            continue
        try:
            by_path[path] = _read(path, folder, content)
        except DataError as error:
            skipped.append(f"{path.relative_to(folder).as_posix()}: {error}")
            tell(f"Warning: {path}: {error}; skipped")
    if not by_path:
        others = f"; {len(skipped)} JSON files there are something else" if skipped else ""
        raise DataError(f"{folder}: no results (*.json, written by sar-experiment) in it{others}")
    newest: dict[str, Result] = {}
    replaced: list[str] = []
    copies: list[str] = []
    for run in sorted(by_path.values(), key=lambda r: (r.finished, r.modified, r.path.as_posix()), reverse=True):
        newer = newest.setdefault(run.identity(), run)
        if newer is run:
            continue
        if newer.code != run.code:
            replaced.append(run.path.as_posix())
        elif set(run["targets"] or ()) - set(newer["targets"] or ()):  # one prompt, evaluated on other datasets too
            targets = {**run["targets"], **(newer["targets"] or {})}
            newest[run.identity()] = dataclasses.replace(newer, content=newer.content | {"targets": targets})
        else:
            copies.append(run.path.as_posix())
    runs = sorted(newest.values(), key=lambda run: run.path.as_posix())
    return ResultSet(_told_apart(runs), tuple(sorted(replaced)), tuple(sorted(copies)), tuple(skipped))


def _read(path: Path, folder: Path, packed: dict[str, Any] | None) -> Result:
    """Read a loose file, or check what a packed one holds.

    Raises:
        DataError: it is no result.
    """
    content: Any = packed
    modified = 0.0
    if packed is None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            modified = path.stat().st_mtime
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"not readable as JSON ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("protocol") not in PROTOCOLS:
        raise DataError("not a result")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"result of schema version {content.get('schema_version')!r}, expected {SCHEMA_VERSION}")
    if flaw := _flaw(content):
        raise DataError(f"a result that lacks what a table needs: {flaw}")
    return of(content, path.relative_to(folder), modified)


def of(content: dict[str, Any], path: Path, modified: float = 0.0) -> Result:
    """Return the result in a file's content.

    Args:
        content: has the keys of `NEEDED`.
        path: of the file below the folder that is read.
        modified: its modification time.
    """
    config, name = content["config"], content["name"]
    weights = f" ({Path(config['pretrained']).name})" if config.get("pretrained") else ""
    values = content["protocol"], content["seed"], config["shots"], content["dataset"]["name"]
    return Result(path, modified, content, name, without_sar(name), *values, content["backbone"]["name"] + weights)


def _flaw(content: dict[str, Any]) -> str | None:
    """Return the first key of a result that does not hold what tables and figures read, None if all do."""
    for path, kind in NEEDED.items():
        value: Any = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
            return path
    return None


def _told_apart(runs: list[Result]) -> tuple[Result, ...]:
    """Add differing settings to the names of runs that share name, seed and data."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for run in runs:
        folder = run.folder if run.protocol == "custom" else None
        groups.setdefault((run.protocol, folder, run.backbone, run.dataset, run.shots, run.partner), []).append(run)
    named = {run.path: run for group in groups.values() for run in _with_variants(group)}
    return tuple(named[run.path] for run in runs)


def _with_variants(group: list[Result]) -> list[Result]:
    """Name the settings in which runs of one method differ, so that each keeps its partner without SAR."""
    sides = [[run for run in group if (SAR in run["name"]) is side] for side in (False, True)]
    keys = list(dict.fromkeys(key for side in sides for key in differing_settings(side)))
    of_sar = [key for key in keys if key in OF_SAR or key == "sar" or key.startswith("sar.")]

    def shown(run: Result, names: list[str]) -> str:
        return ", ".join(f"{key}={run.settings.get(key)}" for key in names)

    others = [key for key in keys if key not in of_sar]
    return [
        dataclasses.replace(
            run,
            name=_row_name(run["name"], shown(run, others), shown(run, of_sar) if SAR in run["name"] else ""),
            partner=_row_name(run.partner, shown(run, others)),
        )
        for run in group
    ]


def _row_name(name: str, *variants: str) -> str:
    differing = ", ".join(filter(None, variants))
    return f"{name} ({differing})" if differing else name
