"""Average over seeds and datasets, as the field reports them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.published import load, method_key
from sar_train.report.results import Result
from sar_train.report.wording import SAR, shots_text, slug, without_sar
from sar_train.training.record import STATISTICS

Sides = tuple[list[Result], list[Result]]
"""Runs of a method without SAR and with it; either may be empty."""
Rows = Mapping[str, list[Result]]
"""Runs by the name of their row."""


@final
@dataclass(frozen=True)
class Mean:
    """A mean and its standard deviation, of a sample; None for one value."""

    value: float
    sd: float | None


def mean(values: Iterable[float | None]) -> Mean | None:
    """Return the mean of the values that are not None, or None if there are none."""
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return None
    return Mean(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None)


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

    def measures(self) -> tuple[Mean | float | None, ...]:
        """Return base, new and harmonic mean, then that in one ranking, and that with class statistics."""
        return self.base, self.new, self.both, self.open and self.open.both, self.statistics and self.statistics.both


def score(runs: Sequence[Result], way: str = "metrics") -> Score:
    """Average runs over their seeds.

    Args:
        runs: runs with the same settings.
        way: how they answer: ``metrics`` for a run's own way, or one of ``other_metrics``.
    """
    apart = [(run.seed, run["metrics"] if way == "metrics" else (run["other_metrics"] or {}).get(way)) for run in runs]
    together = [(run.seed, in_one_ranking(run, way)) for run in runs]
    closed, opened = (_score([(s, measures) for s, measures in side if measures]) for side in (apart, together))
    with_statistics = score(runs, STATISTICS).open if way == "metrics" else None
    return dataclasses.replace(
        closed,
        open=opened if opened.seeds and len(opened.seeds) == len(closed.seeds) else None,
        statistics=with_statistics if with_statistics and with_statistics.seeds == closed.seeds else None,
    )


def in_one_ranking(run: Result, way: str = "metrics", over: str = "images") -> Mapping[str, Any] | None:
    """Return the measures in one ranking over base and new classes, None where a result has none.

    Args:
        run: the result.
        way: ``metrics``, ``zero_shot`` or one of ``other_metrics``.
        over: ``images`` or ``per_class``.
    """
    content = run["open"] or {}
    answers = {**(content.get("other_metrics") or {}), **content}
    return (answers.get(way) or {}).get(over)


def _score(by_seed: Sequence[tuple[int, Mapping[str, Any]]]) -> Score:
    base, new = (mean(metrics.get(key) for _, metrics in by_seed) for key in ("base_accuracy", "new_accuracy"))
    return Score(base, new, tuple(sorted(seed for seed, _ in by_seed)))


def zero_shot(runs: Sequence[Result]) -> Score:
    """Return the accuracies of the hand-crafted template; a seed changes them only if it draws the test images."""
    opened = {run.seed: measures for run in reversed(runs) if (measures := in_one_ranking(run, "zero_shot"))}
    closed = _constant({run.seed: run["zero_shot"] for run in reversed(runs)})
    return dataclasses.replace(closed, open=_constant(opened) if opened else None)


def _constant(by_seed: Mapping[int, Mapping[str, Any]]) -> Score:
    """Average over seeds, without seeds and deviations where all are equal."""
    columns = [[metrics.get(key) for metrics in by_seed.values()] for key in ("base_accuracy", "new_accuracy")]
    if all(len(set(values)) == 1 for values in columns):
        return Score(mean(columns[0][:1]), mean(columns[1][:1]))
    return _score(list(by_seed.items()))


def linear_probe(runs: Iterable[Result]) -> Score:
    """Return the accuracy of logistic regression on the same shots: one value a seed, whatever the method."""
    by_seed = {run.seed: (run["linear_probe"] or {}).get("base_accuracy") for run in runs}
    measured = {seed: value for seed, value in by_seed.items() if value is not None}
    return Score(mean(measured.values()), None, tuple(sorted(measured)))


def over_datasets(scores: Iterable[Score]) -> Score:
    """Average base and new over datasets, without a deviation, which would be that between datasets."""
    every = list(scores)
    base, new = (mean(m and m.value for m in column) for column in ([s.base for s in every], [s.new for s in every]))
    opened, with_statistics = (
        over_datasets(one for one in column if one) if column and all(column) else None
        for column in ([s.open for s in every], [s.statistics for s in every])
    )
    averages = (base and Mean(base.value, None), new and Mean(new.value, None))
    return Score(*averages, open=opened, statistics=with_statistics)


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
        return f"{self.dataset}, {shots_text(self.shots)}, {self.backbone}"


Groups = dict[Scene, dict[str, list[Result]]]


def grouped(runs: Iterable[Result]) -> Groups:
    """Group runs by scene and by row, both in the order in which a reader expects them."""
    groups: Groups = {}
    for run in runs:
        scene = Scene(run.backbone, run.dataset, run.shots)
        groups.setdefault(scene, {}).setdefault(run.name, []).append(run)
    ranks = {dataset: rank for rank, dataset in enumerate(load()["datasets"])}
    order = sorted(groups, key=lambda s: (s.backbone, ranks.get(s.dataset, len(ranks)), s.dataset, s.shots))
    return {
        scene: {
            name: sorted(groups[scene][name], key=lambda run: run.seed)
            for name in sorted(groups[scene], key=_order_of_the_field)
        }
        for scene in order
    }


def _order_of_the_field(name: str) -> tuple[int, str]:
    """Return a sort key: methods as the field lists them, without SAR before with it, then others by name."""
    ranks = {method: rank for rank, method in enumerate(load()["labels"])}
    return ranks.get(method_key(without_sar(name).partition(" (")[0]), len(ranks)), name


def by_setting(groups: Groups) -> dict[tuple[str, int], Groups]:
    """Return the scenes of each backbone and number of shots, over which averages are taken."""
    settings: dict[tuple[str, int], Groups] = {}
    for scene, rows in groups.items():
        settings.setdefault((scene.backbone, scene.shots), {})[scene] = rows
    return settings


def with_most_shots(groups: Groups) -> Groups:
    """Return only the scene with the most shots, of which 0 is all, of each backbone and dataset."""
    order = sorted(groups, key=lambda scene: scene.shots or 10**9)
    last = {(scene.backbone, scene.dataset): scene for scene in order}.values()
    return {scene: rows for scene, rows in groups.items() if scene in last}


def all_runs(rows: Rows) -> list[Result]:
    """Return the runs of all rows."""
    return [run for runs in rows.values() for run in runs]


def pairs(rows: Rows) -> dict[str, Sides]:
    """Return the runs without SAR and with it by method.

    Runs with SAR under several settings share the runs without SAR, if those have only one setting.
    """
    sides: dict[str, Sides] = {}
    for name, runs in rows.items():
        if SAR in name:
            sides[without_sar(name)] = rows.get(runs[0].partner) or [], runs
        else:
            sides.setdefault(name, (runs, []))
    paired = [without for without, with_sar in sides.values() if with_sar]
    return {name: pair for name, pair in sides.items() if pair[1] or pair[0] not in paired}


def on_all(scenes: Iterable[Rows]) -> dict[str, tuple[Score | None, Score | None]]:
    """Average methods over scenes, without SAR and with it; None where that was not run on all of them."""
    every = [pairs(rows) for rows in scenes]
    averages = {}
    for method in dict.fromkeys(name for sides in every for name in sides):
        columns = ([score(sides[method][k]) for sides in every if method in sides and sides[method][k]] for k in (0, 1))
        without, with_sar = (over_datasets(column) if len(column) == len(every) else None for column in columns)
        averages[method] = without, with_sar
    return averages
