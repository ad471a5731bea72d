"""Similarities among class names under the hand-crafted and the learned prompts, and the pairs that moved most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_train.report.results import ResultSet
from sar_train.report.scores import Scene, trained_scenes
from sar_train.report.table import Column, Table, Value, make_table
from sar_train.report.wording import method_name, slug

MOST_PAIRS = 10
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
        learned: (C, C) by the name of the method, without SAR and with it; one of them may be missing.
    """

    protocol: str
    scene: Scene
    method: str
    seed: int
    names: tuple[str, ...]
    base: int
    handcrafted: Matrix
    learned: dict[str, Matrix]

    @property
    def key(self) -> str:
        """Return the name for files."""
        return slug(f"{self.protocol}-{self.scene.slug}-{self.method}")

    @property
    def title(self) -> str:
        """Return ``CoOp on caltech101, 16 shots, sar-mini, seed 1``."""
        return f"{method_name(self.method)} on {self.scene}, seed {self.seed}"


def similarities(results: ResultSet) -> Iterator[Similarities]:
    """Yield the similarities of each method and scene, of the first seed that has both sides."""
    for protocol, scene in trained_scenes(results):
        for method, sides in scene.methods.items():
            without, with_sar = ({run.seed: run["similarities"] for run in s if run["similarities"]} for s in sides)
            for seed in sorted(without.keys() & with_sar.keys() or without.keys() | with_sar.keys())[:1]:
                named = {method_name(method): without.get(seed), f"{method_name(method)} + SAR": with_sar.get(seed)}
                measured = {name: content for name, content in named.items() if content}
                first = next(iter(measured.values()))
                names = tuple(first["names"])
                hand = _matrix(first["handcrafted"], len(names))
                learned = {
                    name: _matrix(content["learned"], len(names))
                    for name, content in measured.items()
                    if tuple(content["names"]) == names
                }
                yield Similarities(protocol, scene, method, seed, names, first["base"], hand, learned)


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
    if not len(rows):
        return []
    change = (next(iter(cosines.learned.values())) - cosines.handcrafted)[rows, columns]
    size = np.abs(change - np.median(change))
    return [(int(rows[k]), int(columns[k])) for k in np.argsort(-size, kind="stable")[:MOST_PAIRS]]


def tables(results: ResultSet) -> Iterator[Table]:
    """Yield the most disturbed pairs of every method whose runs contain similarities."""
    for cosines in similarities(results):
        body: list[Sequence[Value]] = []
        for i, j in most_disturbed(cosines):
            kinds = dict.fromkeys("base" if k < cosines.base else "new" for k in (i, j))
            values = (float(matrix[i, j]) for matrix in (cosines.handcrafted, *cosines.learned.values()))
            body.append((cosines.names[i], cosines.names[j], ", ".join(kinds), *values))
        columns = (
            *(Column(name, text=True) for name in ("name", "and", "classes")),
            *(Column(name, digits=2) for name in ("hand-crafted", *cosines.learned)),
        )
        note = "Pairs are ranked after the median change over all pairs is subtracted, as it disturbs no relation."
        title = f"Most disturbed pairs: {cosines.title}; cosines"
        yield make_table(f"pairs-{cosines.key}", "similarity", title, columns, body, (note,))
