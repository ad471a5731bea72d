"""Average over seeds and datasets, as the field reports them."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.published import load, method_key
from sar_train.report.results import SAR, Result
from sar_train.training.record import STATISTICS


@final
@dataclass(frozen=True)
class Mean:
    """A mean and its standard deviation, of a sample; None for one value."""

    value: float
    sd: float | None


def mean(values: Iterable[float | None]) -> Mean | None:
    """Return the mean of the values that are not None, or None if there are none."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    return Mean(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


@final
@dataclass(frozen=True)
class Score:
    """Accuracies in percent; ``both`` is the harmonic mean of the averaged ``base`` and ``new``.

    Attributes:
        base: of base images.
        new: of new images.
        seeds: of the runs.
        open: the same in one ranking over base and new classes; None unless all runs were measured in it.
        statistics: that ranking with class statistics; None unless all runs have them.
    """

    base: Mean | None
    new: Mean | None
    seeds: tuple[int, ...] = ()
    open: Score | None = None
    statistics: Score | None = None

    @property
    def both(self) -> float | None:
        """Return 2 B N / (B + N) of the means."""
        return harmonic_mean(self.base and self.base.value, self.new and self.new.value)

    def values(self) -> tuple[float | None, float | None, float | None]:
        """Return base, new and harmonic mean."""
        return self.base and self.base.value, self.new and self.new.value, self.both


def score(runs: Sequence[Result], way: str = "metrics") -> Score:
    """Average runs over their seeds.

    Args:
        runs: runs with the same settings.
        way: how they answer: ``metrics`` for a run's own way, or one of ``other_metrics``.
    """
    apart = [(run.seed, run["metrics"] if way == "metrics" else (run["other_metrics"] or {}).get(way)) for run in runs]
    found, opened = (
        [(seed, part) for seed, part in measured if part]
        for measured in (apart, [(run.seed, in_one_ranking(run, way)) for run in runs])
    )
    in_one = _score(opened) if opened and len(opened) == len(found) else None
    with_statistics = score(runs, STATISTICS).open if way == "metrics" else None
    if with_statistics and with_statistics.seeds != tuple(sorted(seed for seed, _ in found)):
        with_statistics = None
    return dataclasses.replace(_score(found), open=in_one, statistics=with_statistics)


def in_one_ranking(run: Result, way: str = "metrics", over: str = "images") -> Mapping[str, Any] | None:
    """Return the measures in one ranking over base and new classes, None where a result has none.

    Args:
        run: the result.
        way: ``metrics``, ``zero_shot`` or one of ``other_metrics``.
        over: ``images`` or ``per_class``.
    """
    found = run["open"] or {}
    answers = {**(found.get("other_metrics") or {}), **found}
    return (answers.get(way) or {}).get(over)


def _score(by_seed: Sequence[tuple[int, Mapping[str, Any]]]) -> Score:
    parts = [part for _, part in by_seed]
    base, new = (mean(part.get(key) for part in parts) for key in ("base_accuracy", "new_accuracy"))
    return Score(base, new, tuple(sorted(seed for seed, _ in by_seed)))


def over_datasets(scores: Iterable[Score]) -> Score:
    """Average base and new over datasets, without a deviation, which would be that between datasets."""
    parts = list(scores)
    base, new = (mean(m and m.value for m in column) for column in ([s.base for s in parts], [s.new for s in parts]))
    rankings = ([part.open for part in parts], [part.statistics for part in parts])
    in_one, with_statistics = (
        over_datasets(part for part in side if part) if side and all(side) else None for side in rankings
    )
    averages = (base and Mean(base.value, None), new and Mean(new.value, None))
    return Score(*averages, open=in_one, statistics=with_statistics)


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
    """Return a text as part of a file's name; a digest tells texts apart that are not ASCII."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")
    return plain if text.isascii() else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


def with_most_shots(groups: Groups) -> Groups:
    """Return only the scene with the most shots, of which 0 is all, of each backbone and dataset."""
    order = sorted(groups, key=lambda scene: scene.shots or 10**9)
    last = {(scene.backbone, scene.dataset): scene for scene in order}.values()
    return {scene: rows for scene, rows in groups.items() if scene in last}


def place(name: str) -> tuple[int, str]:
    """Return a sort key: methods as the field lists them, without SAR before with it, then others by name."""
    known = {method: number for number, method in enumerate(load()["labels"])}
    return known.get(method_key(plain(name).partition(" (")[0]), len(known)), name


def plain(name: str) -> str:
    """Return a row's name without SAR: ``coop (epochs=5)`` for ``coop+sar (epochs=5)``."""
    return name.replace(SAR, "")


def pairs(rows: Mapping[str, list[Result]]) -> dict[str, tuple[list[Result], list[Result]]]:
    """Return the runs without SAR and with it by method; either side may be empty.

    Runs with SAR under several settings share the runs without SAR, if those have only one setting.
    """
    found: dict[str, tuple[list[Result], list[Result]]] = {}
    for name, runs in rows.items():
        if SAR in name:
            without = rows.get(runs[0].partner) or []
            found[plain(name)] = without, runs
        else:
            found.setdefault(name, (runs, []))
    used = [without for without, runs in found.values() if runs]
    return {name: pair for name, pair in found.items() if pair[1] or pair[0] not in used}


def on_all(scenes: Iterable[Mapping[str, list[Result]]]) -> dict[str, tuple[Score | None, Score | None]]:
    """Average methods over scenes, without SAR and with it; None where that was not run on all of them."""
    parts = [pairs(rows) for rows in scenes]
    found = {}
    for method in dict.fromkeys(name for part in parts for name in part):
        sides = [
            [score(part[method][side]) for part in parts if method in part and part[method][side]] for side in (0, 1)
        ]
        without, with_sar = (over_datasets(side) if len(side) == len(parts) else None for side in sides)
        found[method] = without, with_sar
    return found
