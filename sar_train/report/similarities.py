"""Similarities among class names under the hand-crafted and the learned prompts, and the pairs that moved most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, grouped, pairs, with_most_shots
from sar_train.report.table import Column, Table, Value, make_table
from sar_train.report.wording import method_name, slug

MOST_PAIRS = 10
TRAINED = ("base-to-new", "few-shot", "cross-dataset", "domain-generalisation")
"""Protocols with similarities and learning curves to show; few-shot runs show those with the most shots."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Similarities:
    """Cosines among C names, base classes first, of one method and seed.

    Attributes:
        protocol: the experiment.
        scene: the dataset, shots and backbone of the runs.
        method: the method's name without SAR.
        seed: of the runs shown.
        names: the C names.
        base: how many of them are base classes; the rest are new.
        handcrafted: (C, C).
        without: (C, C), None if there is no run without SAR.
        with_sar: (C, C), None if there is no run with it.
    """

    protocol: str
    scene: Scene
    method: str
    seed: int
    names: tuple[str, ...]
    base: int
    handcrafted: Matrix
    without: Matrix | None
    with_sar: Matrix | None

    @property
    def key(self) -> str:
        """Return the name for files."""
        return slug(f"{self.protocol}-{self.scene.slug}-{self.method}")

    @property
    def title(self) -> str:
        """Return ``CoOp on caltech101, 16 shots, sar-mini, seed 1``."""
        return f"{method_name(self.method)} on {self.scene}, seed {self.seed}"

    def learned(self) -> list[tuple[str, Matrix]]:
        """Return the learned matrices by the title of their panel."""
        named = ((method_name(self.method), self.without), (f"{method_name(self.method)} + SAR", self.with_sar))
        return [(name, matrix) for name, matrix in named if matrix is not None]


def similarities(results: ResultSet) -> Iterator[Similarities]:
    """Yield the similarities of each method and scene, of the first seed that has both sides."""
    for protocol in TRAINED:
        groups = grouped(results.of(protocol))
        for scene, rows in (with_most_shots(groups) if protocol == "few-shot" else groups).items():
            for method, sides in pairs(rows).items():
                without, with_sar = ({run.seed: run for run in side if run["similarities"]} for side in sides)
                for seed in sorted(without.keys() & with_sar.keys() or without.keys() | with_sar.keys())[:1]:
                    yield _of(protocol, scene, method, [without.get(seed), with_sar.get(seed)])


def _of(protocol: str, scene: Scene, method: str, sides: Sequence[Result | None]) -> Similarities:
    first = next(run for run in sides if run is not None)
    content = first["similarities"]
    names, base = content["names"], content["base"]
    without, with_sar = (
        _matrix(run["similarities"]["learned"], len(names)) if run and run["similarities"]["names"] == names else None
        for run in sides
    )
    hand = _matrix(content["handcrafted"], len(names))
    return Similarities(protocol, scene, method, first.seed, tuple(names), base, hand, without, with_sar)


def _matrix(upper: Sequence[int], count: int) -> Matrix:
    """Return the (C, C) cosines of an upper triangle in thousandths, row by row; the diagonal is 1."""
    matrix = np.eye(count)
    rows, columns = np.triu_indices(count, 1)
    matrix[rows, columns] = matrix[columns, rows] = np.asarray(upper) / 1000
    return matrix


def most_disturbed(cosines: Similarities) -> list[tuple[int, int]]:
    """Return the pairs whose cosine moved most under the method, or under the method with SAR if only that was run.

    A change that all pairs share does not disturb their relations, so the median change is subtracted first.
    """
    rows, columns = np.triu_indices(len(cosines.names), 1)
    if not len(rows) or not cosines.learned():
        return []
    change = (cosines.learned()[0][1] - cosines.handcrafted)[rows, columns]
    size = np.abs(change - np.median(change))
    return [(int(rows[k]), int(columns[k])) for k in np.argsort(-size, kind="stable")[:MOST_PAIRS]]


def tables(results: ResultSet) -> Iterator[Table]:
    """Yield the most disturbed pairs of every method whose runs contain similarities."""
    for cosines in similarities(results):
        body: list[Sequence[Value]] = []
        for i, j in most_disturbed(cosines):
            kinds = dict.fromkeys("base" if k < cosines.base else "new" for k in (i, j))
            values = (float(m[i, j]) for m in (cosines.handcrafted, *(m for _, m in cosines.learned())))
            body.append((cosines.names[i], cosines.names[j], ", ".join(kinds), *values))
        columns = (
            *(Column(name, text=True) for name in ("name", "and", "classes")),
            *(Column(name, digits=2) for name in ("hand-crafted", *(name for name, _ in cosines.learned()))),
        )
        note = "Pairs are ranked after the median change over all pairs is subtracted, as it disturbs no relation."
        title = f"Most disturbed pairs: {cosines.title}; cosines"
        yield make_table(f"pairs-{cosines.key}", "similarity", title, columns, body, (note,))
