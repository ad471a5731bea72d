"""Average over seeds and datasets, as the field reports them."""

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
    """A mean, its standard deviation (of a sample; None for one value) and the number of values."""

    value: float
    sd: float | None
    n: int


def mean(values: Iterable[float | None]) -> Mean | None:
    """Return the mean of the values that are not None, or None if there are none."""
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
        """Return 2 B N / (B + N) of the means."""
        return harmonic_mean(self.base and self.base.value, self.new and self.new.value)

    def values(self) -> tuple[float | None, float | None, float | None]:
        """Return base, new and harmonic mean."""
        return self.base and self.base.value, self.new and self.new.value, self.both


def score(runs: Sequence[Result], pick: Callable[[Result], Mapping[str, Any] | None] = lambda r: r["metrics"]) -> Score:
    """Average runs over their seeds.

    Args:
        runs: runs with the same settings.
        pick: returns the accuracies of a run to average.
    """
    found = [(run.seed, part) for run in runs if (part := pick(run))]
    return Score(
        mean(part.get("base_accuracy") for _, part in found),
        mean(part.get("new_accuracy") for _, part in found),
        tuple(sorted(seed for seed, _ in found)),
    )


def over_datasets(scores: Iterable[Score]) -> Score:
    """Average base and new over datasets, without a deviation, which would be that between datasets."""
    parts = list(scores)
    base, new = (mean(m and m.value for m in column) for column in ([s.base for s in parts], [s.new for s in parts]))
    return Score(base and Mean(base.value, None, base.n), new and Mean(new.value, None, new.n))


@dataclass(frozen=True)
class Scene:
    """Backbone, dataset and number of shots: accuracies can be compared only where all three are equal."""

    backbone: str
    dataset: str
    shots: int

    @property
    def slug(self) -> str:
        """Return the name for files."""
        return slug(f"{self.dataset}-{self.shots or 'all'}shots-{self.backbone}")

    def __str__(self) -> str:
        """Return ``caltech101, 16 shots, sar-mini``."""
        return f"{self.dataset}, {shots(self.shots)}, {self.backbone}"


def shots(count: int) -> str:
    """Return a number of shots in words."""
    return {0: "all photos", 1: "1 shot"}.get(count, f"{count} shots")


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")


Groups = dict[Scene, dict[str, list[Result]]]


def grouped(runs: Iterable[Result]) -> Groups:
    """Group runs by scene and by row, both in the order in which a reader expects them."""
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
    """Return a sort key: methods as the field lists them, without SAR before with it, then others by name."""
    known = {method: number for number, method in enumerate(load()["labels"])}
    return known.get(method_key(plain(name).partition(" (")[0]), len(known)), name


def plain(name: str) -> str:
    """Return a row's name without SAR: ``coop (epochs=5)`` for ``coop+sar (epochs=5)``."""
    return name.replace(SAR, "")


def has_sar(name: str) -> bool:
    """Say whether a row's name says that SAR took part."""
    return SAR in name


def pairs(rows: Mapping[str, list[Result]]) -> dict[str, tuple[list[Result], list[Result]]]:
    """Return the runs without SAR and with it by method; either side may be empty.

    Runs with SAR under several settings share the runs without SAR, if those have only one setting.
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
