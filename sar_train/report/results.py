"""Read results: loose JSON files, and packed ones, which are one compressed file of JSON Lines for a folder of runs.

A packed line is one run: ``path``, where its JSON file lay below the folder, ``result``, the content of that file, and
``toml``, the file that repeats it. A loose file replaces a packed one of the same path.
"""

from __future__ import annotations

import dataclasses
import json
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from sar_train.config.run import ELSEWHERE, OF_SAR
from sar_train.errors import DataError
from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.published import SAR, of_dataset, without_sar
from sar_train.training.record import SWITCHED

ARCHIVE = "results.jsonl.xz"
RECORD = "record.json"
"""In run folders that were kept; not a result."""
PROTOCOLS = ("base-to-new", "few-shot", "cross-dataset", "domain-generalisation", "custom")
APART = {"seed", "sections", "schedule", "epochs", "learning_rate", "batch_size", *ELSEWHERE}
"""Keys of ``config`` that are stated elsewhere or on which no result depends."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PackedRun:
    """One line of a packed file."""

    path: PurePosixPath
    result: dict[str, Any]
    toml: str | None


def unpack(folder: Path) -> tuple[PackedRun, ...]:
    """Return the packed runs of a folder, by path; none where it has no packed file.

    Raises:
        DataError: the file is damaged.
    """
    archive = folder / ARCHIVE
    return _unpack(archive, archive.stat().st_mtime_ns) if archive.exists() else ()


@lru_cache(maxsize=8)
def _unpack(archive: Path, modified: int) -> tuple[PackedRun, ...]:
    del modified
    try:
        lines = map(json.loads, lzma.decompress(archive.read_bytes()).decode("utf-8").splitlines())
        return tuple(PackedRun(PurePosixPath(line["path"]), line["result"], line["toml"]) for line in lines)
    except (OSError, EOFError, ValueError, KeyError, TypeError, lzma.LZMAError) as error:
        raise DataError(f"{archive}: damaged ({type(error).__name__}); restore it from its source") from None


def loose_files(folder: Path, apart: Path | None = None) -> Iterator[Path]:
    """Yield the JSON files below a folder that may be results, sorted.

    Args:
        folder: searched to any depth, except in folders whose name begins with a dot.
        apart: a folder to leave out.
    """
    return (path for path in _below(folder, "*.json", apart) if path.name != RECORD)


def packed_runs(folder: Path, apart: Path | None = None) -> Iterator[tuple[Path, PackedRun]]:
    """Yield the packed runs below a folder as `loose_files` searches it, each with its path as if it lay there loose.

    Raises:
        DataError: a packed file is damaged.
    """
    for archive in _below(folder, ARCHIVE, apart):
        yield from ((archive.parent / run.path, run) for run in unpack(archive.parent))


def _below(folder: Path, pattern: str, apart: Path | None) -> Iterator[Path]:
    for path in sorted(folder.rglob(pattern)):
        hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not (apart and path.is_relative_to(apart)):
            yield path


@dataclass(frozen=True)
class Result:
    """One finished run: the content of its file, with the values that tables are sorted by.

    Attributes:
        path: relative to the folder that was read; of a packed one, where it lay before.
        content: the parsed JSON.
        name: of its row in a table, with the settings that distinguish it from runs of the same name.
        partner: the row of the same method without SAR.
        protocol: one of `PROTOCOLS`.
        seed: of the run.
        shots: images per class, 0 for all.
        dataset: that it was trained on.
        backbone: its name, with its weights if it needs any.
    """

    path: Path
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

    def scores(self, way: str) -> dict[str, float | None] | None:
        """Return accuracies by ``metrics`` or one of the record's other scoring modes; None if it was not measured.

        Switched, base photos are ranked by the learned prompt and new ones by the hand-crafted one, as by zero-shot.
        """
        base, new = self["metrics"]["base_accuracy"], self["zero_shot"].get("new_accuracy")
        if way == SWITCHED and None not in (base, new):
            return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic_mean(base, new)}
        scores: dict[str, float | None] | None
        scores = self["metrics"] if way == "metrics" else (self["other_metrics"] or {}).get(way)
        return scores

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

    @property
    def comparable(self) -> bool:
        """Return True for the published split with all its images, or a dataset without published figures."""
        config, origin = self["config"], self["dataset"].get("split_origin", "published")
        whole = not config.get("allow_missing") and not config.get("skip_unreadable")
        return not of_dataset(self.dataset) or (origin != "ours" and whole)


def differing_settings(runs: Sequence[Result]) -> list[str]:
    """Return the settings that are not the same in all runs, in the order of the first run that has them."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({json.dumps(run.settings.get(key)) for run in runs}) > 1]


def shared_settings(runs: Sequence[Result]) -> dict[str, Any]:
    """Return the settings, except unset ones and those of methods, that are the same in all runs that have them."""
    apart = {"method", "data", *(str(run.settings.get("method")) for run in runs)}
    every = [{key: v for key, v in run.settings.items() if key.partition(".")[0] not in apart} for run in runs]
    values = {key: [s[key] for s in every if key in s] for key in dict.fromkeys(key for s in every for key in s)}
    return {key: v[0] for key, v in values.items() if v[0] not in (None, "", False) and v == [v[0]] * len(v)}


@dataclass(frozen=True)
class ResultSet:
    """The results in a folder.

    Attributes:
        runs: the runs that count, in the order of their file names.
        left_out: a line for each JSON file that does not count.
    """

    runs: tuple[Result, ...]
    left_out: tuple[str, ...] = ()

    def of(self, protocol: str) -> tuple[Result, ...]:
        """Return the runs of a protocol."""
        return tuple(run for run in self.runs if run.protocol == protocol)


def read(folder: Path, *, tell: Callable[[str], None] = lambda line: None, apart: Path | None = None) -> ResultSet:
    """Read every result below a folder; of results with the same settings and seed the newest counts.

    Args:
        folder: searched to any depth, except in folders whose name begins with a dot.
        tell: called with a line for each JSON file that is not a result.
        apart: a folder to leave out: the report's.

    Raises:
        DataError: there is no such folder, no result in it, or a packed file is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    contents: dict[Path, Any] = {path: run.result for path, run in packed_runs(folder, apart)}
    left_out, runs = [], []
    for path in loose_files(folder, apart):
        try:
            contents[path] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            contents[path] = None
    for path, content in sorted(contents.items()):
        try:
            runs.append(_result(path.relative_to(folder), content))
        except DataError as error:
            left_out.append(f"{path.relative_to(folder).as_posix()}: {error}")
            tell(f"Warning: {path}: {error}; skipped")
    if not runs:
        others = f"; {len(left_out)} JSON files there are something else" if left_out else ""
        raise DataError(f"{folder}: no results (*.json, written by sar-experiment) in it{others}")
    newest: dict[str, Result] = {}
    for run in sorted(runs, key=lambda run: (str(run["finished"] or ""), run.path.as_posix()), reverse=True):
        of_sweep = run.folder.as_posix() if run.protocol == "custom" else ""
        values = [run.protocol, of_sweep, run["name"], run.settings, run.backbone, run.dataset, run.seed]
        key = json.dumps(values, sort_keys=True)
        newer = newest.setdefault(key, run)
        if newer is run:
            continue
        if newer.code == run.code and set(run["targets"] or ()) - set(newer["targets"] or ()):
            targets = {**run["targets"], **(newer["targets"] or {})}  # one prompt, evaluated on other datasets too
            newest[key] = dataclasses.replace(newer, content=newer.content | {"targets": targets})
        else:
            left_out.append(f"{run.path.as_posix()}: an older run of the settings and seed of {newer.path.as_posix()}")
    return ResultSet(_told_apart(sorted(newest.values(), key=lambda run: run.path.as_posix())), tuple(left_out))


def _result(path: Path, content: Any) -> Result:
    """Return the result in a file's content.

    Raises:
        DataError: it is no result.
    """
    if not isinstance(content, dict) or content.get("protocol") not in PROTOCOLS:
        raise DataError("not a result")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"result of schema version {content.get('schema_version')!r}, expected {SCHEMA_VERSION}")
    try:
        config, name = content["config"], content["name"]
        weights = f" ({Path(config['pretrained']).name})" if config.get("pretrained") else ""
        values = content["protocol"], content["seed"], config["shots"], content["dataset"]["name"]
        for way in ("metrics", "zero_shot"):
            float(content[way]["base_accuracy"])
        return Result(path, content, name, without_sar(name), *values, content["backbone"]["name"] + weights)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"a result that lacks what a table needs: {error}") from None


def _told_apart(runs: list[Result]) -> tuple[Result, ...]:
    """Add differing settings to the names of runs of one method, so that each keeps its partner without SAR."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for run in runs:
        folder = run.folder if run.protocol == "custom" else None
        groups.setdefault((run.protocol, folder, run.backbone, run.dataset, run.shots, run.partner), []).append(run)
    named = {}
    for group in groups.values():
        sides = [[run for run in group if (SAR in run["name"]) is side] for side in (False, True)]
        keys = list(dict.fromkeys(key for side in sides for key in differing_settings(side)))
        of_sar = [key for key in keys if key in OF_SAR or key == "sar" or key.startswith("sar.")]
        others = [key for key in keys if key not in of_sar]
        for run in group:
            common, mine = (
                ", ".join(f"{key}={run.settings.get(key)}" for key in names)
                for names in (others, of_sar if SAR in run["name"] else [])
            )
            name = ", ".join(filter(None, (common, mine)))
            named[run.path] = dataclasses.replace(
                run,
                name=f"{run['name']} ({name})" if name else run["name"],
                partner=f"{run.partner} ({common})" if common else run.partner,
            )
    return tuple(named[run.path] for run in runs)
