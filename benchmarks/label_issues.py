"""Photos in the wrong folder: how many are found, how many right ones are suspected, and what leaving them out gains.

    python -m benchmarks.label_issues [--deal choosing|reporting] [--what found accuracy] [--sets garments caltech]
        [--draws 10] [--share 0.1] [--cache FOLDER] [--out FILE.md]

Frozen features of ``sar-mini``, as ``benchmarks.class_model`` caches them. Labels are wrong at random, or name the
class whose mean is nearest to that of the photo's own class. The constants of ``sar_infer.class_model.labels`` were
chosen on ``choosing``: half of Caltech101's classes, garments' test photos, the last 60 photos of each texture, PACS'
cartoons and sketches. ``reporting`` has no photo of these: the other classes of Caltech101 (20 a draw), garments'
training photos, the first 60 photos of each texture, PACS' photos. Accuracy is that of the class model under the
hand-crafted prompt on photos of no draw, fitted with the wrong photos, without those in doubt, and without any wrong
one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_model import SCALE, classes_of, encoded
from sar_infer.class_model import cross_validation
from sar_infer.class_model.labels import label_issues
from sar_infer.class_model.model import linear
from sar_infer.measures import auroc

SETS = ("garments", "caltech", "dtd", "pacs")
SHARES, PHOTOS, KINDS = (0.05, 0.1, 0.2), (16, 8, 4), ("random", "nearest")
_CLASSES = 20


def pools(rows: dict[str, Any], name: str, deal: str) -> tuple[list[str], list[Any], list[Any]]:
    """Return class names, and features to draw from and to test on by class; nothing is tested while choosing."""
    source, names = name.removesuffix(", sketches"), classes_of(rows, name.removesuffix(", sketches"))
    first = deal == "choosing"
    if source == "caltech":
        order = np.random.default_rng(1).permutation(len(names))
        names = [names[c] for c in (order[:50] if first else order[50:])]
    keys = [f"{source}/{one}" for one in names]
    if source == "garments":
        pool = [rows[key + "/test" * first] for key in keys]
    elif source == "dtd":
        pool = [rows[key][60:] if first else rows[key][:60] for key in keys]
    elif source == "pacs":
        pool = [rows[key + ("" if not first else "/sketch" if source != name else "/cartoon")] for key in keys]
    else:
        pool = [np.concatenate([rows[key], rows[key + "/test"]]) if first else rows[key] for key in keys]
    if source in ("garments", "caltech"):
        return names, pool, [rows[key + "/test"] for key in keys]
    return names, pool, [rows[key][60:] for key in keys] if source == "dtd" else []


def draw(pool: list[Any], photos: int, share: float, kind: str, seed: int) -> tuple[Any, Any, Any, Any, list[Any]]:
    """Return features (N, D), labels (N,), true ones (N,), positions of the classes, and the photos not drawn."""
    rng = np.random.default_rng([seed, photos, round(100 * share), kind == "nearest"])
    classes = rng.permutation(len(pool))[:_CLASSES]
    orders = [rng.permutation(len(pool[c])) for c in classes]
    rows = np.concatenate([pool[c][order[:photos]] for c, order in zip(classes, orders, strict=True)])
    truth = np.repeat(np.arange(len(classes)), [min(photos, len(order)) for order in orders])
    means = np.array([pool[c].mean(0) for c in classes])
    apart = ((means[:, None] - means) ** 2).sum(-1) + np.diag(np.full(len(means), np.inf))
    while True:
        labels, moved = truth.copy(), rng.permutation(len(truth))[: round(share * len(truth))]
        other = (truth[moved] + rng.integers(1, len(classes), len(moved))) % len(classes)
        labels[moved] = apart.argmin(1)[truth[moved]] if kind == "nearest" else other
        if len(np.unique(labels)) == len(classes):
            rest = [pool[c][order[photos:]] for c, order in zip(classes, orders, strict=True)]
            return rows.astype(np.float64), labels, truth, classes, rest


def rates(pool: list[Any], photos: int, share: float, kind: str, count: int) -> list[float]:
    """Return AUROC, and in per cent: right class named, wrong photos in doubt, right ones in doubt; over all draws."""
    columns = []
    for seed in range(count):
        rows, labels, truth, *_ = draw(pool, photos, share, kind, seed)
        issues = label_issues(rows, labels)
        doubtful = np.isin(np.arange(len(labels)), issues.doubtful)
        columns.append((labels != truth, issues.probability, issues.suggested == truth, doubtful))
    wrong, probability, named, doubtful = map(np.concatenate, zip(*columns, strict=True))
    if not wrong.any():
        return [float("nan"), float("nan"), float("nan"), 100 * float(doubtful.mean())]
    score = auroc(-probability[wrong], -probability[~wrong])
    return [score, *(100 * float(flags.mean()) for flags in (named[wrong], doubtful[wrong], doubtful[~wrong]))]


def accuracies(rows: dict[str, Any], name: str, share: float, kind: str, count: int) -> tuple[float, ...]:
    """Return accuracies in per cent with the wrong photos, without those in doubt, and without any wrong one."""
    names, pool, tests = pools(rows, name, "reporting")
    positions = {one: n for n, one in enumerate(classes_of(rows, name))}
    figures = []
    for seed in range(count):
        x, labels, truth, classes, rest = draw(pool, 16, share, kind, seed)
        text = rows[f"text/{name}"][[positions[names[c]] for c in classes]].astype(np.float64)
        test = [tests[c] for c in classes] if tests else rest
        images, answers = np.concatenate(test), np.repeat(np.arange(len(classes)), [len(part) for part in test])
        doubtful = np.isin(np.arange(len(labels)), label_issues(x, labels).doubtful)
        of_draw = []
        for flags in (np.ones(len(x), np.bool_), ~doubtful, labels == truth):
            model = cross_validation.fit(x[flags], labels[flags], text, SCALE).model
            means = np.array([x[flags & (labels == c)].mean(0) for c in range(len(classes))])
            weights, bias = linear(model, text, means, np.bincount(labels[flags]))
            scores = (images @ weights.T + bias)[:, :-1]
            of_draw.append(100 * float(np.mean([(scores[answers == c].argmax(1) == c).mean() for c in set(answers)])))
        figures.append(of_draw)
    return tuple(np.mean(figures, axis=0))


def table(rows: dict[str, Any], sets: Sequence[str], deal: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield a line for each set, kind, share and number of photos."""
    for name in (*sets, "pacs, sketches") if deal == "choosing" else sets:
        _, pool, _ = pools(rows, name, deal)
        for photos in PHOTOS:
            clean = rates(pool, photos, 0.0, "random", count)
            yield name, photos, "none", "", "", "", "", f"{clean[3]:.1f}"
            for kind in KINDS:
                for share in SHARES:
                    score, named, wrong, right = rates(pool, photos, share, kind, count)
                    cell = (f"{share:.0%}", f"{score:.3f}", f"{named:.0f}", f"{wrong:.0f}", f"{right:.1f}")
                    yield name, photos, kind, *cell
        command.say(name)


def main() -> None:
    """Measure and write Markdown."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        cache=Path(tempfile.gettempdir()) / "sar-class-model",
        deal="reporting",
        what=["found"],
        sets=list(SETS),
        draws=10,
        share=(0.1, "wrong labels where accuracy is measured"),
        out=(Path, "write Markdown here"),
    )
    rows = encoded(args.data, args.cache)
    text: list[str] = []
    heads: tuple[str, ...]
    if "found" in args.what:
        lines = [*table(rows, args.sets, args.deal, args.draws)]
        heads = ("set", "photos", "wrong labels", "share", "AUROC", "right folder named", "wrong ones in doubt")
        text.append(command.markdown((*heads, "right ones in doubt"), lines))
    if "accuracy" in args.what:
        lines = []
        for name in args.sets:
            for kind in KINDS:
                values = accuracies(rows, name, args.share, kind, args.draws)
                lines.append((name, kind, f"{args.share:.0%}", *(f"{value:.1f}" for value in values)))
                command.say(" ".join(map(str, lines[-1])))
        heads = ("set", "wrong labels", "share", "with the wrong photos", "without those in doubt")
        text.append(command.markdown((*heads, "without any wrong one"), lines))
    command.tell("\n\n".join(text), out=args.out)


if __name__ == "__main__":
    main()
