"""The settings that the outcome of a run depends on, by which unfinished and finished runs are recognised."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from sar_train.config.run import ELSEWHERE, OF_CLASS_MODEL, OF_SAR, RunConfig
from sar_train.errors import ConfigError
from sar_train.methods.base import method_kind
from sar_train.regularisers.base import regularisers

SAR = "sar"


def regulariser_of(sections: Iterable[str]) -> str:
    """Return the name of the regulariser that has settings, ``sar`` where none has.

    Raises:
        ConfigError: several have.
    """
    named = sorted(regularisers.entries.keys() & set(sections)) or [SAR]
    if len(named) > 1:
        raise ConfigError(f"settings for {' and '.join(named)}, but a run has one regulariser: leave one out")
    return named[0]


def regulariser_settings(config: RunConfig) -> Any:
    """Return the settings of a run's regulariser.

    SAR has the method's own weight where neither weight nor distance is given.

    Raises:
        ConfigError: unknown or unusable settings.
    """
    name = regulariser_of(config.sections)
    settings = config.section(name, regularisers.get(name).Config)
    if name != SAR:
        return settings
    method_weight = method_kind(config.method).sar_weight
    chosen = config.sections.get(SAR, {}).keys() & {"weight", "distance"}
    return settings if chosen or not method_weight else dataclasses.replace(settings, weight=method_weight)


def outcome_settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings with the defaults of the method, of its schedule and of SAR, as plain JSON values.

    Left out is where things are on this machine (`config.ELSEWHERE`), and without SAR what only SAR reads. Where a
    setting names a file that is there (weights, novel names, a list of images or of excluded ones, features), its
    digest is added.

    Raises:
        ConfigError: unknown or unusable settings.
    """
    check_sections(config)
    method = method_kind(config.method)
    sections = {config.method: config.section(config.method, method.Config)}
    if config.sar:
        sections[regulariser_of(config.sections)] = regulariser_settings(config)
    excluded = (*ELSEWHERE, "sections", *(() if config.sar else OF_SAR))

    def counted(
        section: Any,
    ) -> dict[str, Any]:  # without those that are newer than committed results, at their default
        late = {f.name: f.default for f in dataclasses.fields(section) if "later" in f.metadata}
        return {name: value for name, value in dataclasses.asdict(section).items() if late.get(name, ...) != value}

    outcome: dict[str, Any] = {
        "schedule": dataclasses.asdict(method.schedule),
        "sections": {name: counted(section) for name, section in sections.items()},
    }
    usual = {name: getattr(RunConfig, name) for name in OF_CLASS_MODEL}
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in excluded and v is not None}
    outcome |= {k: v for k, v in values.items() if usual.get(k, ...) != v}
    names = {"data": config.data, "pretrained": config.pretrained, "exclude": config.exclude}
    names |= {"novel": config.novel} if config.sar else {}
    digests = {key: digest for key, name in names.items() if name and (digest := file_digest(name, config.data_root))}
    return outcome | ({"digests": digests} if digests else {})


def check_sections(config: RunConfig) -> None:
    """Raise ConfigError where settings are given for a method that the run does not use."""
    regulariser = regulariser_of(config.sections)
    unknown = set(config.sections) - {regulariser, config.method}
    if unknown:
        hint = "; --on belongs to --method dept, whose base method runs at the settings that DePT's paper gives it"
        raise ConfigError(
            f"settings for {', '.join(sorted(unknown))}, but this run uses {config.method} and {regulariser}"
            + (hint if "dept" in (*unknown, config.method) else "")
        )


def file_digest(name: str, root: str | None) -> str | None:
    """Digest the file that a setting names, here or below the folder of data; None where it names none."""
    plain = name.partition(":")[2] if name.startswith(("file:", "dataset:")) else name
    for path in (Path(plain), Path(root or ".") / plain):
        if path.is_file():
            stat = path.stat()
            return _of_file(path.resolve(), stat.st_size, stat.st_mtime_ns)
    return None


@lru_cache(maxsize=64)
def _of_file(path: Path, size: int, time: int) -> str:
    """Digest a file; ``size`` and ``time`` tell a changed file from the one that was digested before."""
    del size, time
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
