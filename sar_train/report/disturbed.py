"""Similarities among class names under the hand-crafted and the learned prompts, and the pairs that moved most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, grouped, pairs, slug, with_most_shots
from sar_train.report.table import Column, Table, number, words
from sar_train.report.wording import method_name

SECTION = "similarity"
MOST_PAIRS = 10
PROTOCOLS = ("base-to-new", "few-shot", "cross-dataset", "domain-generalisation")
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Similarities:
    """Cosines among C names, base classes first, of one method and seed.

    Attributes:
        scene: the dataset, shots and backbone of the runs.
        method: the method's name without SAR.
        seed: of the runs shown.
        names: the C names.
        base: how many of them are base classes; the rest are new.
        handcrafted: (C, C).
        without: (C, C), None if there is no run without SAR.
        with_sar: (C, C), None if there is no run with it.
        protocol: the experiment.
    """

    scene: Scene
    method: str
    seed: int
    names: tuple[str, ...]
    base: int
    handcrafted: Matrix
    without: Matrix | None
    with_sar: Matrix | None
    protocol: str

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


def similarities(results: ResultSet) -> list[Similarities]:
    """Return the similarities of each method and scene, of the first seed that has both sides.

    Of few-shot runs only those with the most shots count.
    """
    found = []
    for protocol in PROTOCOLS:
        groups = grouped(results.of(protocol))
        shown = with_most_shots(groups) if protocol == "few-shot" else groups
        for scene, rows in shown.items():
            for method, sides in pairs(rows).items():
                by_seed = [{run.seed: run for run in side if run["similarities"]} for side in sides]
                seeds = sorted(by_seed[0].keys() & by_seed[1].keys()) or sorted(by_seed[0].keys() | by_seed[1].keys())
                if seeds:
                    found.append(_of(protocol, scene, method, [side.get(seeds[0]) for side in by_seed]))
    return found


def _of(protocol: str, scene: Scene, method: str, sides: Sequence[Result | None]) -> Similarities:
    first = next(run for run in sides if run is not None)
    content = first["similarities"]
    names = tuple(content["names"])
    without, with_sar = (
        matrix(run["similarities"]["learned"], len(names)) if run and _names(run) == names else None for run in sides
    )
    hand = matrix(content["handcrafted"], len(names))
    return Similarities(scene, method, first.seed, names, content["base"], hand, without, with_sar, protocol)


def _names(run: Result) -> tuple[str, ...]:
    return tuple(run["similarities"]["names"])


def matrix(upper: Sequence[int], count: int) -> Matrix:
    """Return the (C, C) cosines of an upper triangle in thousandths, row by row; the diagonal is 1."""
    found = np.eye(count)
    rows, columns = np.triu_indices(count, 1)
    found[rows, columns] = found[columns, rows] = np.asarray(upper) / 1000
    return found


def most_disturbed(found: Similarities) -> list[tuple[int, int]]:
    """Return the pairs whose cosine moved most under the method, or under the method with SAR if only that was run.

    A change that all pairs share does not disturb their relations, so the median change is subtracted first.
    """
    rows, columns = np.triu_indices(len(found.names), 1)
    if not len(rows) or not found.learned():
        return []
    change = (found.learned()[0][1] - found.handcrafted)[rows, columns]
    size = np.abs(change - np.median(change))
    return [(int(rows[place]), int(columns[place])) for place in np.argsort(-size, kind="stable")[:MOST_PAIRS]]


def tables(results: ResultSet) -> list[Table]:
    """Return the most disturbed pairs of every method whose runs contain similarities."""
    return [_table(found) for found in similarities(results)]


def _table(found: Similarities) -> Table:
    def kind(place: int) -> str:
        return "base" if place < found.base else "new"

    body = []
    for i, j in most_disturbed(found):
        kinds = kind(i) if kind(i) == kind(j) else f"{kind(i)}, {kind(j)}"
        cosines = [number(float(m[i, j]), 2) for m in (found.handcrafted, *(m for _, m in found.learned()))]
        body.append((words(found.names[i]), words(found.names[j]), words(kinds), *cosines))
    columns = (
        *(Column(name, text=True) for name in ("name", "and", "classes")),
        Column("hand-crafted"),
        *(Column(name) for name, _ in found.learned()),
    )
    change = "Pairs are ranked after the median change over all pairs is subtracted, as it disturbs no relation."
    return Table(
        f"pairs-{found.key}", SECTION, f"Most disturbed pairs: {found.title}; cosines", columns, tuple(body), (change,)
    )
