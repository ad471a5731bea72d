"""Averages over seeds and datasets, as the field reports them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.published import load, method_key
from sar_train.report.results import SAR, Result


@final
@dataclass(frozen=True)
class Mean:
    """A mean, its standard deviation (of a sample; None of one value) and of how many values it is."""

    value: float
    sd: float | None
    n: int


def mean(values: Iterable[float | None]) -> Mean | None:
    """Mean of what is there, None where nothing is."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    return Mean(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


@final
@dataclass(frozen=True)
class Score:
    """Accuracies in percent; ``both`` is the harmonic mean of the averaged ``base`` and ``new``."""

    base: Mean | None
    new: Mean | None
    seeds: tuple[int, ...] = ()

    @property
    def both(self) -> float | None:
        """2 B N / (B + N) of the means."""
        return harmonic_mean(self.base and self.base.value, self.new and self.new.value)

    def values(self) -> tuple[float | None, float | None, float | None]:
        """Base, new and harmonic mean."""
        return self.base and self.base.value, self.new and self.new.value, self.both


def score(runs: Sequence[Result], pick: Callable[[Result], Mapping[str, Any] | None] = lambda r: r["metrics"]) -> Score:
    """Average runs over their seeds.

    Args:
        runs: of the same settings.
        pick: which accuracies of a run.
    """
    found = [(run.seed, part) for run in runs if (part := pick(run))]
    return Score(
        mean(part.get("base_accuracy") for _, part in found),
        mean(part.get("new_accuracy") for _, part in found),
        tuple(sorted(seed for seed, _ in found)),
    )


def over_datasets(scores: Iterable[Score]) -> Score:
    """Average base and new over datasets; no deviation is given, which would be that between datasets."""
    parts = list(scores)
    base, new = (mean(m and m.value for m in column) for column in ([s.base for s in parts], [s.new for s in parts]))
    return Score(base and Mean(base.value, None, base.n), new and Mean(new.value, None, new.n))


@dataclass(frozen=True)
class Scene:
    """What has to be equal for accuracies to be comparable."""

    backbone: str
    dataset: str
    shots: int

    @property
    def slug(self) -> str:
        """For file names."""
        return slug(f"{self.dataset}-{self.shots or 'all'}shots-{self.backbone}")

    def __str__(self) -> str:
        """``caltech101, 16 shots, sar-mini``."""
        return f"{self.dataset}, {shots(self.shots)}, {self.backbone}"


def shots(count: int) -> str:
    """A number of shots as words."""
    return {0: "all photos", 1: "1 shot"}.get(count, f"{count} shots")


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")


Groups = dict[Scene, dict[str, list[Result]]]


def grouped(runs: Iterable[Result]) -> Groups:
    """Runs by scene and by row, both in the order in which a reader expects them."""
    found: Groups = {}
    for run in runs:
        scene = Scene(run.backbone, run.dataset, run.shots)
        found.setdefault(scene, {}).setdefault(run.name, []).append(run)
    places = {dataset: place for place, dataset in enumerate(load()["datasets"])}
    order = sorted(found, key=lambda s: (s.backbone, places.get(s.dataset, len(places)), s.dataset, s.shots))
    return {
        scene: {name: sorted(found[scene][name], key=lambda r: r.seed) for name in sorted(found[scene], key=place)}
        for scene in order
    }


def place(name: str) -> tuple[int, str]:
    """Sorts methods as the field lists them, without SAR before with it, and others by name after them."""
    known = {method: number for number, method in enumerate(load()["labels"])}
    return known.get(method_key(plain(name).partition(" (")[0]), len(known)), name


def plain(name: str) -> str:
    """A row's name without SAR: ``coop+sar (epochs=5)`` is ``coop (epochs=5)``."""
    return name.replace(SAR, "")


def has_sar(name: str) -> bool:
    """Whether a row's name says that SAR took part."""
    return SAR in name


def pairs(rows: Mapping[str, list[Result]]) -> dict[str, tuple[list[Result], list[Result]]]:
    """By method: runs without SAR and with it; either may be empty.

    Runs with SAR under several settings all stand beside the one way in which the method was run without.
    """
    found: dict[str, tuple[list[Result], list[Result]]] = {}
    for name, runs in rows.items():
        if has_sar(name):
            without = rows.get(runs[0].partner) or []
            found[plain(name)] = without, runs
        else:
            found.setdefault(name, (runs, []))
    used = [without for without, runs in found.values() if runs]
    return {name: pair for name, pair in found.items() if pair[1] or pair[0] not in used}
