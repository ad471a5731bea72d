"""``sar-bank fit``: how long it takes, how it compares with ``sar-train``, and if its intervals hold.

    python -m benchmarks.bank_fit [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--draws 20]

1. Seconds of the whole process ``sar-bank fit`` for Caltech101's 100 classes of 16 photos, added to a bank of the
   bundle that ships, in a process that cannot import PyTorch; its processor time, which other work does not change.
2. The sets of ``benchmarks.class_statistics``: statistics of ``sar-train --prompt handcrafted`` against those that a
   bank fits to the same photos, with the same text rows and folds; then with the text rows of the bundle that ships.
   Accuracy on test photos of trained classes alone, and of trained and added classes in one ranking.
3. How often the printed 95 % intervals hold the accuracy on further classes, over draws of Caltech101's classes: so
   many fitted, as many added by name and by 1, 2 and 4 photos, 15 test photos each.
4. Trained classes of each set fitted in the bundle that ships, the others added by name: test photos of both, and of
   Caltech101's classes that the bundle knows by name, right among all 1,000.

Writes Markdown.
"""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_statistics import PHOTOS, Domain, Scores, domains, set_options, split

FIT = "import sys; sys.modules['torch'] = None; from sar_infer.cli.bank import main; main()"
"""``sar-bank`` where there is no PyTorch."""
ADDED = 5
"""Draws of photos of added classes."""


def photo_sets(rows: Any, labels: Any, names: Any) -> dict[str, Any]:
    """Return photos by class as a bank keeps them; digests are made up."""
    from sar_infer.bank import PhotoSet

    result = {}
    for label, name in enumerate(names):
        of_class = np.flatnonzero(labels == label)
        digests = np.zeros((len(of_class), 32), np.uint8)
        digests[:, :8] = of_class.astype("<u8")[:, None].view(np.uint8)
        result[name] = PhotoSet.of(digests, rows[of_class].astype(np.float32))
    return result


def seconds(domain: Domain, rounds: int) -> tuple[float, float]:
    """Return median seconds of the whole command, and of processors, for all classes of a set in the shipped bundle."""
    from sar_infer.bank import add
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.classifier import Classifier

    bundle = open_bundle(None)
    train, _ = split(domain.train, 16, 0)
    names = list(domain.names)
    rows = Classifier(bundle).embed_names(names)
    bank = add(bundle.bank, names, rows, photos=photo_sets(train.rows, train.labels, names))
    whole, busy = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            path = Path(folder) / f"{number}.safetensors"
            bank.save(path)
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", FIT, "fit", str(path)], capture_output=True, check=True)
            whole.append(time.perf_counter() - started)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(whole), statistics.median(busy)


def by_training(domain: Domain, texts: Any, backbone: Any, seed: int) -> Any:
    """Return the statistics of ``sar-train --prompt handcrafted`` on the trained classes of a set."""
    from sar_infer.classifiers import left_out
    from sar_infer.classifiers.fitting import chosen
    from sar_infer.classifiers.gaussian import gaussian

    train, _ = split(domain.train.of(range(domain.trained)), 16, seed)
    features, labels = train.rows[:, None].astype(np.float64), train.labels
    rows = texts[: domain.trained].astype(np.float64)
    choice = left_out.choose(features, labels, [left_out.Prompt(left_out.HANDCRAFTED, rows)], backbone.logit_scale)
    return chosen(choice, gaussian(features[:, 0], labels, domain.trained), rows, 1.0)


def by_bank(domain: Domain, texts: Any, backbone: Any, seed: int) -> Any:
    """Return the statistics that a bank of the trained classes fits to the same photos."""
    from sar_infer.bank import ClassBank
    from sar_infer.classifiers.bank_fitting import fit_bank

    train, _ = split(domain.train.of(range(domain.trained)), 16, seed)
    names = list(domain.names[: domain.trained])
    bank = ClassBank.of(names, texts[: domain.trained].astype(np.float32), "benchmark")
    sets = photo_sets(train.rows, train.labels, names)
    texts_by_name = dict(zip(names, texts, strict=False))
    fitting = fit_bank(bank, bank, None, backbone.logit_scale, sets, texts_by_name)
    means = np.array([sets[name].mean for name in names], np.float32)
    counts = np.array([len(sets[name]) for name in names], np.int64)
    return dataclasses.replace(fitting.statistics, means=means, counts=counts)


def scores(domain: Domain, test: Any, model: Any, texts: Any, scale: float) -> list[Scores]:
    """Return accuracy of trained classes alone, then of one ranking by number of photos of the added classes."""
    from sar_infer.classifiers.statistics import composed

    pool = [np.flatnonzero(domain.train.labels == c) for c in range(domain.trained, len(domain.names))]
    alone = test.of(range(domain.trained))
    weights, bias = composed(model, scale, texts[: domain.trained], model.means, model.counts)
    right = ((alone.rows - model.centre) @ weights.T + bias).argmax(1) == alone.labels
    result = [Scores(100 * float(right.mean()), math.nan, math.nan, math.nan)]
    for photos in PHOTOS:
        draws = []
        for draw in range(ADDED if photos else 1):
            rng = np.random.default_rng(draw)
            means = [domain.train.rows[rng.permutation(rows)[: max(photos, 1)]].mean(0) for rows in pool]
            counts = [*model.counts, *[photos] * len(pool)]
            weights, bias = composed(model, scale, texts, np.concatenate([model.means, means]), counts)
            answers = ((test.rows - model.centre) @ weights.T + bias).argmax(1)
            draws.append(Scores.of(answers == test.labels, test.labels, domain.trained))
        result.append(Scores(*np.mean([dataclasses.astuple(one) for one in draws], axis=0).tolist()))
    return result


def compared(args: Any, backbone: Any) -> str:
    """Return the table of accuracies, means over draws."""
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.classifier import Classifier

    shipped = Classifier(open_bundle(None))
    rows: dict[str, dict[str, list[list[Scores]]]] = {}
    for seed in args.seeds:
        for domain in domains(args, backbone, seed):
            texts = backbone.embed_names(domain.names, domain.template).numpy()
            others = shipped.embed_names(list(domain.names))
            test = domain.tests[""]
            ways = {
                "sar-train": (by_training(domain, texts, backbone, seed), texts),
                "sar-bank fit, same text rows": (by_bank(domain, texts, backbone, seed), texts),
                "sar-bank fit, bundle that ships": (by_bank(domain, others, backbone, seed), others),
            }
            for way, (model, names) in ways.items():
                rows.setdefault(domain.name, {}).setdefault(way, []).append(
                    scores(domain, test, model, names, backbone.logit_scale)
                )
            command.say(f"{domain.name}, draw {seed}")
    lines = []
    for name, by_way in rows.items():
        for way, runs in by_way.items():
            means = [np.mean([dataclasses.astuple(run[n]) for run in runs], axis=0) for n in range(1 + len(PHOTOS))]
            cells = [f"{means[0][0]:.1f}", *(f"{trained:.1f} / {added:.1f}" for trained, added, *_ in means[1:])]
            lines.append((name, way, *cells))
    return command.markdown(("set", "fitted by", "trained alone", "by name", "1 photo", "2 photos", "4 photos"), lines)


def held(args: Any, backbone: Any, domain: Domain) -> str:
    """Return the table of how often intervals hold the accuracy on further classes."""
    from sar_infer.classifiers import left_out
    from sar_infer.classifiers.fitting import chosen
    from sar_infer.classifiers.gaussian import gaussian
    from sar_infer.classifiers.statistics import composed

    texts = backbone.embed_names(domain.names, domain.template).numpy()
    lines = []
    for classes in (6, 12, 25):
        counts = dict.fromkeys(PHOTOS, 0)
        widths: dict[int, list[float]] = {photos: [] for photos in PHOTOS}
        for draw in range(args.draws):
            rng = np.random.default_rng(1000 * classes + draw)
            drawn = rng.permutation(len(domain.names))[: 2 * classes]
            train, rest = split(domain.train.of(drawn), 16, draw)
            ours = train.labels < classes
            rows, features = texts[drawn[:classes]].astype(np.float64), train.rows[ours].astype(np.float64)
            prompts = [left_out.Prompt(left_out.HANDCRAFTED, rows)]
            choice = left_out.choose(
                features[:, None], train.labels[ours], prompts, backbone.logit_scale, alphas=left_out.ALPHAS[1:]
            )
            model = chosen(choice, gaussian(features, train.labels[ours], classes), rows, 1.0)
            test = split(rest, 15, draw)[0]
            for item in (one for one in choice.expected if one.photos in PHOTOS):
                added = [
                    train.rows[train.labels == c][: max(item.photos, 1)].mean(0) for c in range(classes, 2 * classes)
                ]
                numbers = [*model.counts, *[item.photos] * classes]
                means = np.concatenate([model.means, added])
                weights, bias = composed(model, backbone.logit_scale, texts[drawn], means, numbers)
                right = ((test.rows - model.centre) @ weights.T + bias).argmax(1) == test.labels
                tested = [c for c in range(classes, 2 * classes) if (test.labels == c).any()]
                accuracy = 100 * np.mean([right[test.labels == c].mean() for c in tested])
                counts[item.photos] += item.low <= accuracy <= item.high
                widths[item.photos].append(item.high - item.low)
        cells = [f"{100 * counts[n] / args.draws:.0f} % ({np.mean(widths[n]):.0f} points wide)" for n in PHOTOS]
        lines.append((f"{classes} + {classes}", *cells))
        command.say(f"intervals, {classes} classes")
    return command.markdown(("classes", "by name", "1 photo", "2 photos", "4 photos"), lines)


def named(args: Any, backbone: Any, caltech: Domain) -> str:
    """Return the table of what a fit does to classes that the bundle that ships knows by name."""
    from sar_infer.bank import add
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.classifier import Classifier
    from sar_infer.classifiers.statistics import Statistics, composed

    shipped = Classifier(open_bundle(None))
    columns = [shipped.bank.lookup.get(name.replace("_", " ")) for name in caltech.names]
    strangers = caltech.tests[""].of([c for c, column in enumerate(columns) if column is not None])
    places = np.array([column for column in columns if column is not None])[strangers.labels]
    results: dict[str, dict[str, list[Any]]] = {}
    for seed in args.seeds:
        for domain in domains(args, backbone, seed):
            free = [c for c, name in enumerate(domain.names) if shipped.bank.lookup.get(name.replace("_", " ")) is None]
            taught = [c for c in free if c < domain.trained]
            if len(taught) < 4:
                continue
            names = [domain.names[c] for c in free]
            train, _ = split(domain.train.of(taught), 16, seed)
            sets = photo_sets(train.rows, train.labels, names[: len(taught)])
            bank = add(shipped.bank, names, shipped.embed_names(names), photos=sets)
            rows, scale = np.asarray(bank.embeddings), shipped.bundle.manifest.logit_scale
            test, at = domain.tests[""].of(free), np.array([bank.lookup.find(name) for name in names])
            means, counts = np.zeros(rows.shape), np.zeros(len(rows), np.int64)
            for name, one in sets.items():
                means[bank.lookup.find(name)], counts[bank.lookup.find(name)] = one.mean, len(one)
            text = dataclasses.replace(Statistics.default(rows.shape[1], scale=scale), alpha=0.0, offsets=((0, 0.0),))
            models = {
                "text alone": text,
                "photos, not fitted": Statistics.default(rows.shape[1], scale=scale),
                "fitted": shipped.fit_model(bank=bank).statistics,
            }
            for way, model in models.items():
                weights, bias = composed(model, scale, rows, means, counts)

                def right(photos: Any, model: Any = model, weights: Any = weights, bias: Any = bias) -> Any:
                    return ((photos.rows - model.centre) @ weights.T + bias).argmax(1)

                ours = right(test) == at[test.labels]
                trained = test.labels < len(taught)
                shares = (ours[trained].mean(), ours[~trained].mean(), (right(strangers) == places).mean())
                results.setdefault(domain.name, {}).setdefault(way, []).append(shares)
    lines = [
        (name, way, *(f"{100 * share:.1f}" for share in np.mean(runs, axis=0)))
        for name, by_way in results.items()
        for way, runs in by_way.items()
    ]
    return command.markdown(("set", "bank", "with photos", "added by name", "Caltech101, by name"), lines)


def main() -> None:
    """Measure, print and write."""
    args = set_options(__doc__, shots=16, draws=20, rounds=3, out=command.RESULTS / "bank_fit.md")
    from sar_train.clip import backbone as backbones

    backbone = backbones.load("sar-mini")
    caltech = next(
        domain
        for domain in domains(type(args)(**{**vars(args), "sets": ["caltech101"]}), backbone, 1)
        if domain.name == "Caltech101"
    )
    whole, busy = seconds(caltech, args.rounds)
    caltech_held = held(args, backbone, caltech)
    page = "\n\n".join(
        [
            f"`sar-bank fit`, 100 classes of 16 photos beside those of the bundle: {whole:.1f} s the whole process, "
            f"{busy:.1f} s of processor time, medians of {args.rounds}, {os.cpu_count()} cores",
            f"Accuracy over test photos, trained / added in one ranking, draws {', '.join(map(str, args.seeds))}",
            compared(args, backbone),
            f"How often 95 % intervals hold the mean accuracy on as many further classes, {args.draws} draws",
            caltech_held,
            "Right among all classes of the bundle that ships, trained classes with photos, others by name, same draws",
            named(args, backbone, caltech),
        ]
    )
    command.tell(page, out=args.out)


if __name__ == "__main__":
    main()
