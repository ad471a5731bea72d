"""Choose the constants of the class model on the choosing deal of ``benchmarks.class_model``; print a table for each.

    python -m experiments.class_model.tune [--data FOLDER] [--cache FOLDER] [--draws 3] [--only NAME ...]

Each table changes one constant and leaves all others as they are; the first row is the value that ships. No photo of
the reporting deal is read, and nothing is random but by fixed seeds. NAME is a constant, or

* ``USUAL``: the fitted weights and thresholds of each set, whose means are the usual ones
* ``_ALIKE``: one class with photos among names, in a bank without a class model

Constants of `folds`: means over sets, draws, and 0, 1, 2 and 4 photos of added classes; *least* is the worst change of
H in one of these cells. Of `adapt`: the change of H by streams without labels, mean and worst draw. Of `groups`: photos
of classes of the bank that are in groups like none, the same of absent classes, and absent classes that lead a group
like none, in per cent; banks of the trained classes, and of these with half of the others by two photos each.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import class_model as bench
from benchmarks import command
from sar_infer.class_model import adapt, cross_validation, folds, groups
from sar_infer.class_model import weights as of_weights
from sar_infer.class_model.model import ClassModel, apart, linear, log_probabilities
from sar_infer.classify import composer

SETS = ("garments", "dtd", "pacs", "caltech")
FOLDS: dict[str, list[Any]] = {
    "_FREE": [of_weights._FREE, 1.0, 4.0],
    "_HELD": [of_weights._HELD, 0.25, 1.0],
    "_NAMELESS": [folds._NAMELESS, 4, 1000],
    "_TESTED": [folds._TESTED, 3],
    "_PARTS": [folds._PARTS, 2, 4],
    "_CLASS_PHOTOS": [cross_validation._CLASS_PHOTOS, 2.0, 8.0],
    "_NAMES": [folds._NAMES, 2.0, 1.0],
    "_MOVED": [cross_validation._MOVED, 2e-3],
}
OWNERS: dict[str, Any] = {
    **dict.fromkeys(("_FREE", "_HELD"), of_weights),
    **dict.fromkeys(("_CLASS_PHOTOS", "_MOVED"), cross_validation),
}
ADAPT: dict[str, list[Any]] = {
    "UNLABELLED": [adapt.UNLABELLED, 0.05, 0.3],
    "UNKNOWN_PRIOR": [adapt.UNKNOWN_PRIOR, 1.0, 10.0],
    "SAME_KIND": [adapt.SAME_KIND, 0.1, 0.4],
    "LEAST": [adapt.LEAST, 10, 40],
    "OWN": [adapt.OWN, 0.33, -9.0],
}
GROUPS: dict[str, list[Any]] = {"_GROUPS": [groups._GROUPS, 2, 5], "_PHOTOS": [groups._PHOTOS, 2, 8]}
ALIKE = [composer._ALIKE, 0.0, 0.2, 0.4, 0.6]


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    """Set a constant of a module for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def drawn(rows: dict[str, Any], draws: int, sets: tuple[str, ...] = SETS) -> Iterator[bench.Draw]:
    """Yield the draws of all sets in the choosing deal, of Caltech101 half as many."""
    for name in sets:
        yield from bench.draws(rows, name, "choosing", draws if name != "caltech" else (draws + 1) // 2)


def of_folds(rows: dict[str, Any], draws: int) -> dict[tuple[str, str, int], Any]:
    """Return the mean figures (4,) over draws by set, kind of image and photos."""
    cells: dict[tuple[str, str, int], list[Any]] = {}
    for draw in drawn(rows, draws):
        system = bench.Model(draw.train, draw.text[: draw.trained], draw.number)
        for kind in draw.tests:
            for photos in bench.PHOTOS:
                cells.setdefault((draw.name, kind, photos), []).append(
                    bench.by_names(draw, kind, system, photos)[[2, 3, 4, 6]]
                )
    return {key: np.mean(values, axis=0) for key, values in cells.items()}


def of_adapting(rows: dict[str, Any], draws: int) -> tuple[Any, ...]:
    """Return the mean change of H where all classes come and over all streams, and the worst, by kind of image."""
    changes: dict[tuple[bool, str], list[float]] = {}
    for draw in drawn(rows, draws, SETS[:3]):
        others = [bench.draws(rows, name, "choosing", 1) for name in SETS if name != draw.name]
        strangers = np.concatenate([next(other).tests[""].rows[::2] for other in others])
        system = bench.Model(draw.train, draw.text[: draw.trained], draw.number)
        for kind in ("", "grey", "cartoon"):
            if kind in draw.tests:
                for _, name, values in bench.by_streams(draw, kind, system, strangers):
                    changes.setdefault((not kind, name), []).append(values[1] - values[0])
    cells = []
    for home in (True, False):
        of_kind = [value for (same, _), values in changes.items() if same is home for value in values]
        cells += [np.mean(changes[home, "all"]), np.mean(of_kind), np.min(of_kind)]
    return tuple(f"{value:+.1f}" for value in cells)


def of_groups(rows: dict[str, Any], draws: int) -> tuple[Any, ...]:
    """Return shares of photos in groups like none and of classes that lead one, see the module."""
    cells = []
    for draw in drawn(rows, draws):
        model, test = bench.Model(draw.train, draw.text[: draw.trained], draw.number).model, draw.tests[""]
        others = np.random.default_rng(0).permutation(np.arange(draw.trained, len(draw.text)))
        for added in (others[:0], np.sort(others[: (len(others) + 1) // 2])):
            columns = np.r_[np.arange(draw.trained), added]
            means, counts = (values[columns] for values in draw.bank(2, 0))
            weights, bias = linear(model, draw.text[columns], means, counts)
            scores = np.exp(log_probabilities((test.rows @ weights.T + bias)[:, :-1]))
            best = np.argsort(-scores, axis=1)[:, : groups.NEAREST]
            sums = counts[:, None] * (means - model.centre)
            means = apart(model, draw.text[columns], sums, counts)[0] + model.centre
            answers = groups.Answers(best, np.take_along_axis(scores, best, 1).astype(np.float32), means, counts)
            none, leaders = np.zeros(len(test.labels), np.bool_), set()
            for group in groups.suggest(model, test.rows.astype(np.float32), answers).groups:
                if group.like is None:
                    none[group.photos] = True
                    leaders.add(int(np.bincount(test.labels[group.photos]).argmax()))
            known = np.isin(test.labels, columns)
            absent = {*range(len(draw.text))} - {*columns.tolist()}
            cells.append((none[known].mean(), none[~known].mean(), len(absent & leaders) / len(absent)))
    return tuple(f"{100 * value:.0f}" for value in np.mean(cells, axis=0))


def alone(rows: dict[str, Any], alike: float) -> tuple[Any, ...]:
    """Return accuracy on a class with 1, 4 and 16 photos, on the others that have names only, and on all images."""
    cells = []
    for draw in drawn(rows, 1):
        test, classes = draw.tests[""], len(draw.text)
        pool = [*(draw.train.rows[draw.train.labels == c] for c in range(draw.trained)), *draw.pool]
        for c in range(0, classes, max(1, classes // 10)):
            for photos in (1, 4, 16):
                shown = np.resize(pool[c][:photos].mean(0), (classes, draw.text.shape[1]))
                centre = (alike * shown[0]).astype(np.float32)
                model = ClassModel.unfitted(draw.text.shape[1], bench.SCALE, centre)
                model = dataclasses.replace(model, text_centre=draw.text.mean(0).astype(np.float32))
                weights, bias = linear(model, draw.text, shown, np.where(np.arange(classes) == c, photos, 0))
                right = (test.rows @ weights[:-1].T + bias[:-1]).argmax(1) == test.labels
                if (test.labels == c).any():
                    sides = right[test.labels == c].mean(), right[test.labels != c].mean(), right.mean()
                    cells.append((draw.name, *sides))
    by_set = [np.mean([one[1:] for one in cells if one[0] == name], axis=0) for name in SETS]
    return tuple(f"{100 * value:.1f}" for value in np.mean(by_set, axis=0))


def usual(rows: dict[str, Any], draws: int) -> Iterator[tuple[Any, ...]]:
    """Yield a row of fitted weights and threshold for each set, and their mean."""
    sets: dict[str, list[Any]] = {}
    for draw in drawn(rows, draws):
        model = bench.Model(draw.train, draw.text[: draw.trained], draw.number).model
        sets.setdefault(draw.name, []).append((*model.weights, float(model.unknown_threshold(bench.SHOTS))))
    means = {name: np.mean(values, axis=0) for name, values in sets.items()}
    for name, values in (means | {"mean": np.mean([*means.values()], axis=0)}).items():
        yield name, *(f"{value:.4f}" for value in values.tolist())


def main() -> None:
    """Print a table for each constant."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        cache=Path(tempfile.gettempdir()) / "sar-class-model",
        draws=3,
        only=[*FOLDS, *ADAPT, *GROUPS, "_ALIKE", "USUAL"],
    )
    rows, before = bench.encoded(args.data, args.cache), None
    for name in args.only:
        heads: tuple[str, ...]
        table: list[tuple[Any, ...]] = []
        if name == "USUAL":
            heads, table = ("set", "w0", "w1", "w2", "w3", "unknown"), [*usual(rows, args.draws)]
        elif name == "_ALIKE":
            heads = (name, "the class with photos", "others", "all")
            table = [(value, *alone(rows, value)) for value in ALIKE]
        elif name in FOLDS:
            heads = (name, "same kind: H", "accuracy", "nats", "AUROC", "least")
            heads += ("another kind: H", *heads[2:])
            before = before or of_folds(rows, args.draws)
            for value in FOLDS[name]:
                with changed(OWNERS.get(name, folds), name, value):
                    now = before if value == FOLDS[name][0] else of_folds(rows, args.draws)
                row: list[Any] = [value]
                for home in (True, False):
                    keys = [key for key in now if (not key[1]) is home]
                    h, accuracy, nats, area = np.mean([now[key] for key in keys], axis=0)
                    least = min(now[key][0] - before[key][0] for key in keys)
                    row += [f"{h:.1f}", f"{accuracy:.1f}", f"{nats:.3f}", f"{area:.3f}", f"{least:+.1f}"]
                table.append(tuple(row))
        else:
            module, values, measure = (
                (adapt, ADAPT[name], of_adapting) if name in ADAPT else (groups, GROUPS[name], of_groups)
            )
            heads = (name, "same kind: all", "mean", "worst", "another kind: all", "mean", "worst")
            if module is groups:
                heads = (name, "in the bank", "absent", "leading")
            for value in values:
                with changed(module, name, value):
                    table.append((value, *measure(rows, args.draws)))
        command.tell(command.markdown(heads, table) + "\n")


if __name__ == "__main__":
    main()
