"""Choose the constants of the class model on the choosing deal of ``benchmarks.class_model``; prints a table for each.

    python -m experiments.class_model.tune [--data FOLDER] [--cache FOLDER] [--draws 5] [--only NAME ...]

Each table changes one constant and leaves all others as they are. *Same kind* and *another kind* are means over sets,
draws and 0, 1, 2 and 4 photos of added classes: harmonic mean (H) and overall accuracy in per cent, nats, AUROC of
unknown images. *Least* is the worst change of H in one of these cells. No photo of the reporting deal is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import class_model as bench
from benchmarks import command
from sar_infer.class_model import folds

SETS = ("garments", "dtd", "pacs", "caltech")
CHOICES: dict[str, list[Any]] = {
    "_FREE": [2.0, 1.0, 4.0],
    "_HELD": [0.5, 0.25, 1.0],
    "_NAMELESS": [8, 4, 1000],
    "_TESTED": [8, 3],
    "_PARTS": [3, 2, 4],
    "_CLASS_PHOTOS": [4.0, 2.0, 8.0],
    "_NAMES": [4.0, 2.0, 1.0],
}


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    """Set a constant of a module for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def figures(draw: bench.Draw, system: Any, kind: str, photos: int) -> tuple[float, float, float, float]:
    """Return H, accuracy, nats and AUROC of a test set with so many photos of each added class."""
    test, others, values, areas = draw.tests[kind], np.arange(draw.trained, len(draw.text)), [], []
    for shown in range(bench.SHOWN if photos else 1):
        logs, _, _ = system.answers(test.rows, draw.text, *draw.bank(photos, shown))
        right = logs.argmax(1) == test.labels
        nats = -logs[np.arange(len(right)), test.labels].mean()
        values.append((bench.accuracies(right, test.labels, draw.trained)[2], 100 * right.mean(), nats))
    for half in range(4):
        added = np.sort(np.random.default_rng(half).permutation(others)[: (len(others) + 1) // 2])
        columns = np.r_[np.arange(draw.trained), added]
        means, counts = draw.bank(photos, half)
        strange = system.answers(test.rows, draw.text[columns], means[columns], counts[columns])[1]
        known = np.isin(test.labels, columns)
        areas.append(bench.area(strange[known], strange[~known]))
    return (*np.mean(values, axis=0).tolist(), float(np.mean(areas)))


def measured(rows: dict[str, Any], draws: int) -> dict[tuple[str, str, int], Any]:
    """Return the mean figures (4,) over draws by set, kind of image and photos."""
    cells: dict[tuple[str, str, int], list[Any]] = {}
    for name in SETS:
        for draw in bench.draws(rows, name, "choosing", draws if name != "caltech" else min(draws, 2)):
            system = bench.Model(draw.train, draw.text[: draw.trained], draw.number)
            for kind in draw.tests:
                for photos in bench.PHOTOS:
                    cells.setdefault((name, kind, photos), []).append(figures(draw, system, kind, photos))
    return {key: np.mean(values, axis=0) for key, values in cells.items()}


def main() -> None:
    """Print a table for each constant."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        cache=Path(tempfile.gettempdir()) / "sar-class-model",
        draws=5,
        only=list(CHOICES),
    )
    rows = bench.encoded(args.data, args.cache)
    usual = measured(rows, args.draws)
    for name in args.only:
        print(
            f"\n{name}\n| value | same kind: H, accuracy, nats, AUROC | least | another kind | least |\n|---|---|---|---|---|"
        )
        for value in CHOICES[name]:
            with changed(folds, name, value):
                now = (
                    usual if value == getattr(folds, name) and value == CHOICES[name][0] else measured(rows, args.draws)
                )
            sides = []
            for home in (True, False):
                keys = [key for key in now if (not key[1]) is home]
                mean, least = np.mean([now[key] for key in keys], axis=0), min(now[k][0] - usual[k][0] for k in keys)
                sides.append(f"{mean[0]:.1f} {mean[1]:.1f} {mean[2]:.3f} {mean[3]:.3f} | {least:+.1f}")
            print(f"| {value} | {' | '.join(sides)} |", flush=True)


if __name__ == "__main__":
    main()
