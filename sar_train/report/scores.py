"""Average over seeds and datasets, as the field reports them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.published import SAR, load, method_key, without_sar
from sar_train.report.results import Result
from sar_train.training.record import CLASS_MODEL, CLASS_MODEL_HANDCRAFTED, CLASS_MODEL_SWITCHED, SWITCHED

Sides = tuple[list[Result], list[Result]]
"""Runs of a method without SAR and with it; either may be empty."""


def shots_text(count: int) -> str:
    """Return a number of shots in words."""
    return {0: "all photos", 1: "1 shot"}.get(count, f"{count} shots")


def slug(text: str) -> str:
    """Return a text as part of a file's name; a digest separates texts that are not ASCII."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")
    return plain if text.isascii() else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


def flat_mean(means: Iterable[Mean | None]) -> Mean | None:
    """Return the mean of means, without a deviation, which would be that between datasets or splits."""
    average = mean(one and one.value for one in means)
    return average and Mean(average.value, None)


def interval(before: Mapping[int, float | None], after: Mapping[int, float | None]) -> float | None:
    """Return half the width of the 95 % interval of a mean difference, by Student's t over values of the same seed.

    None where the seeds differ, or where fewer than two have both values.
    """
    pairs = [(before[seed], after[seed]) for seed in before if seed in after]
    moved = [b - a for a, b in pairs if a is not None and b is not None]
    if before.keys() != after.keys() or len(moved) < 2:
        return None
    return half_width(moved)


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a mean, by Student's t over two values or more."""
    from scipy.special import stdtrit

    quantile: float = stdtrit(len(values) - 1, 0.975)
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@final
@dataclass(frozen=True)
class Score:
    """Accuracies in percent; ``both`` is the harmonic mean of the averaged ``base`` and ``new``.

    Attributes:
        base: of base images.
        new: of new images.
        seeds: of the runs.
        open: the same over base and new classes together; None unless all runs were measured in it.
        class_model: that ranking with the class model; None unless all runs have them.
    """

    base: Mean | None
    new: Mean | None
    seeds: tuple[int, ...] = ()
    open: Score | None = None
    class_model: Score | None = None

    @property
    def both(self) -> float | None:
        """Return 2 B N / (B + N) of the means."""
        return harmonic_mean(self.base and self.base.value, self.new and self.new.value)

    def measures(self) -> tuple[Mean | float | None, ...]:
        """Return base, new and harmonic mean, then that over both together, and that with the class model."""
        return self.base, self.new, self.both, self.open and self.open.both, self.class_model and self.class_model.both


def score(runs: Sequence[Result], way: str = "metrics") -> Score:
    """Average runs over their seeds.

    Args:
        runs: runs with the same settings.
        way: how they answer: ``metrics`` for a run's own way, or one of ``other_metrics``.
    """
    closed = _score((run.seed, run.scores(way)) for run in runs)
    opened = _score((run.seed, joint_measures(run, way)) for run in runs)
    model_way = {"metrics": CLASS_MODEL, SWITCHED: CLASS_MODEL_SWITCHED}.get(way)
    with_model = score(runs, model_way).open if model_way else None
    return dataclasses.replace(
        closed,
        open=opened if opened.seeds and len(opened.seeds) == len(closed.seeds) else None,
        class_model=with_model if with_model and with_model.seeds == closed.seeds else None,
    )


def _score(by_seed: Iterable[tuple[int, Mapping[str, Any] | None]]) -> Score:
    measured = [(seed, metrics) for seed, metrics in by_seed if metrics]
    base, new = (mean(metrics.get(key) for _, metrics in measured) for key in ("base_accuracy", "new_accuracy"))
    return Score(base, new, tuple(sorted(seed for seed, _ in measured)))


def joint_measures(run: Result, way: str = "metrics", over: str = "images") -> Mapping[str, Any] | None:
    """Return the measures over base and new classes together, None where a result has none.

    Args:
        run: the result.
        way: ``metrics``, ``zero_shot`` or one of ``other_metrics``.
        over: ``images`` or ``per_class``.
    """
    content = run["open"] or {}
    answers = {**(content.get("other_metrics") or {}), **content}
    return (answers.get(way) or {}).get(over)


def zero_shot(runs: Sequence[Result]) -> Score:
    """Return the accuracies of the hand-crafted template; a seed changes them only if it draws the test images.

    Splits of the classes, such as a sweep's deals, are averaged as datasets are.
    """
    if len(splits := by_split(runs)) > 1:
        return over_datasets(map(zero_shot, splits))
    opened = _constant(runs, joint_measures)
    by_seed = {run.seed: joint_measures(run, CLASS_MODEL_HANDCRAFTED) for run in runs}
    with_model = _score(by_seed.items()) if all(by_seed.values()) else None
    closed = _constant(runs, Result.__getitem__)
    return dataclasses.replace(closed, open=opened if opened.base else None, class_model=with_model)


def _constant(runs: Sequence[Result], measures: Callable[[Result, str], Mapping[str, Any] | None]) -> Score:
    """Average zero-shot measures over seeds, without seeds and deviations where all are equal."""
    by_seed = {run.seed: metrics for run in reversed(runs) if (metrics := measures(run, "zero_shot"))}
    accuracies = {(metrics.get("base_accuracy"), metrics.get("new_accuracy")) for metrics in by_seed.values()}
    if len(accuracies) == 1:
        base, new = accuracies.pop()
        return Score(mean([base]), mean([new]))
    return _score(by_seed.items())


def linear_probe(runs: Sequence[Result]) -> Score:
    """Return the accuracy of logistic regression on the same shots: one value a seed, whatever the method.

    Splits of the classes are averaged as datasets are.
    """
    if len(splits := by_split(runs)) > 1:
        return over_datasets(map(linear_probe, splits))
    by_seed = {run.seed: run["linear_probe"] for run in runs}
    return _score((seed, probe) for seed, probe in by_seed.items() if (probe or {}).get("base_accuracy") is not None)


def by_split(runs: Iterable[Result]) -> list[list[Result]]:
    """Return the runs of each split into base and new classes."""
    splits: dict[str | None, list[Result]] = {}
    for run in runs:
        splits.setdefault(run["config"].get("base_classes"), []).append(run)
    return [*splits.values()]


def over_datasets(scores: Iterable[Score]) -> Score:
    """Average base and new over datasets, without a deviation."""
    every = list(scores)
    base, new = flat_mean(s.base for s in every), flat_mean(s.new for s in every)
    opened, with_model = (
        over_datasets(one for one in column if one) if column and all(column) else None
        for column in ([s.open for s in every], [s.class_model for s in every])
    )
    return Score(base, new, open=opened, class_model=with_model)


@dataclass(frozen=True)
class Scene:
    """Runs whose accuracies can be compared: of one backbone, dataset and number of shots.

    Attributes:
        backbone: its name.
        dataset: its name.
        shots: images per class, 0 for all.
        rows: runs by the name of their row, in the order in which a reader expects them.
    """

    backbone: str
    dataset: str
    shots: int
    rows: Mapping[str, list[Result]] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """Return ``caltech101, 16 shots, sar-mini``."""
        return f"{self.dataset}, {shots_text(self.shots)}, {self.backbone}"

    @property
    def slug(self) -> str:
        """Return the name for files."""
        return slug(f"{self.dataset}-{self.shots or 'all'}shots-{self.backbone}")

    @property
    def runs(self) -> list[Result]:
        """Return the runs of all rows."""
        return [run for runs in self.rows.values() for run in runs]

    @property
    def methods(self) -> dict[str, Sides]:
        """Return the runs without SAR and with it by method.

        Runs with SAR under several settings share the runs without SAR, if those have only one setting.
        """
        sides: dict[str, Sides] = {}
        for name, runs in self.rows.items():
            if SAR in name:
                sides[without_sar(name)] = self.rows.get(runs[0].partner) or [], runs
            else:
                sides.setdefault(name, (runs, []))
        paired = [without for without, with_sar in sides.values() if with_sar]
        return {name: pair for name, pair in sides.items() if pair[1] or pair[0] not in paired}


def grouped(runs: Iterable[Result]) -> list[Scene]:
    """Group runs by scene and by row, both in the order in which a reader expects them."""
    groups: dict[tuple[str, str, int], dict[str, list[Result]]] = {}
    for run in runs:
        rows = groups.setdefault((run.backbone, run.dataset, run.shots), {})
        rows.setdefault(run.name, []).append(run)
    ranks = {dataset: rank for rank, dataset in enumerate(load()["datasets"])}
    order = sorted(groups, key=lambda key: (key[0], ranks.get(key[1], len(ranks)), key[1], key[2]))
    methods = {method: rank for rank, method in enumerate(load()["labels"])}

    def as_listed(name: str) -> tuple[int, str]:
        """Return a sort key: methods as the field lists them, without SAR before with it, then others by name."""
        return methods.get(method_key(without_sar(name).partition(" (")[0]), len(methods)), name

    return [
        Scene(*key, {name: sorted(rows[name], key=lambda run: run.seed) for name in sorted(rows, key=as_listed)})
        for key, rows in ((key, groups[key]) for key in order)
    ]


def by_setting(scenes: Iterable[Scene]) -> dict[tuple[str, int], list[Scene]]:
    """Return the scenes of each backbone and number of shots, over which averages are taken."""
    settings: dict[tuple[str, int], list[Scene]] = {}
    for scene in scenes:
        settings.setdefault((scene.backbone, scene.shots), []).append(scene)
    return settings


def on_all(scenes: Sequence[Scene], way: str = "metrics") -> dict[str, tuple[Score | None, Score | None]]:
    """Average methods over scenes, without SAR and with it; None where that was not run on all of them."""
    every = [scene.methods for scene in scenes]
    averages = {}
    for method in dict.fromkeys(name for sides in every for name in sides):
        columns = (
            [score(sides[method][k], way) for sides in every if method in sides and sides[method][k]] for k in (0, 1)
        )
        without, with_sar = (over_datasets(column) if len(column) == len(every) else None for column in columns)
        averages[method] = without, with_sar
    return averages
