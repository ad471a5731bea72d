"""The class model on real photos and ``sar-mini``: accuracy, likelihood, calibration, unknown images and adapting.

    python -m benchmarks.class_model [--deal choosing|reporting] [--sets garments caltech dtd pacs] [--draws 5]
        [--what names streams long few promise alone trained unknown gains seconds] [--shots 16] [--cache FOLDER]
        [--out FILE.csv]

Two deals share no test photo. Constants are chosen on ``choosing``; ``reporting`` is for figures. Within a deal, no
training photo of a draw is a test photo of another. Each class belongs to half A or B: in ``choosing`` all added
classes are from A, in ``reporting`` from B, so that no class is an added one in both. DTD and PACS have disjoint
training photos in the two deals; garments and Caltech101 share theirs, as garments have 31 photos a class.

Draws vary the roles of classes, the 16 photos of each trained class, and the photos of added classes. Filters are those
of another camera: dim and warm, grey and noisy, posterised; test photos alone go through them.

``promise`` compares accuracies that the class model expects with those measured, where as many classes are added as
there were (PACS: three to four): *base* and *new* are those of trained classes without any others, *H* and *accuracy*
those of added classes, each expected and measured. ``alone`` has accuracies on trained classes among themselves:
*base* by name, *new* of the class model, *H* of a linear probe. ``trained`` has those of ``sar-train --prompt learned``
on the same photos: *base* of the learned prompt, *new* with the class model. ``seconds`` prints the processor time of
fits, also among the 1,000 names of the shipped bundle, of an image, and of the distance of *unknown*, with its memory.

``long`` prints accuracies, in per cent, before and after long streams without labels that show only trained classes, or
all: Caltech101, added classes known by name, each photo of half the test 1, 10 and 50 times.

``gains`` prints H, accuracy and nats before decision 44 and their changes, with intervals over draws: the prior of P
with 16 photos of each trained class, the rules for few photos with 2 and 1.

``unknown`` prints a table of unknown images, near (absent classes of the set) and far (photos of other sets): AUROC,
the share rejected at exactly 5 % false alarms, and false alarms and shares rejected at the default threshold, in per
cent. Rows are sets by 0 to 8 photos of added classes, another camera, and two and three classes without others.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import command
from sar_infer.class_model import adapt, cross_validation, folds
from sar_infer.class_model import model as of_model
from sar_infer.class_model.model import Rivals, linear, log_probabilities, scores_of
from sar_infer.measures import auroc, calibration_error, calibration_error_by_chance

SHOTS = 16
PHOTOS = (0, 1, 2, 4)
ADDED = (*PHOTOS, 8)
"""Photos of added classes where unknown images are looked at."""
SHOWN = 3
"""Draws of the photos of added classes, by number of photos."""
STREAMS = ("all", "quarter", "trained", "added", "skewed", "twenty", "unknown")
FILTERS = ("dim", "grey", "poster")
SETS = {
    "garments": ("a photo of a {}.", 6, 4),
    "caltech": ("a photo of a {}.", 40, 40),
    "dtd": ("{} texture.", 6, 4),
    "pacs": ("a photo of a {}.", 4, 3),
}
"""Template, trained and added classes."""
FEW = ("good", "defective", "dirty")
"""Names that say nothing of the photos."""
SCALE = 21.0
"""Of ``sar-mini``."""


def filtered(image: Any, name: str, rng: Any) -> Any:
    """Return an image (PIL) as another camera would give it."""
    from PIL import Image, ImageOps

    if name == "poster":
        return ImageOps.posterize(image, 2)
    pixels = np.asarray(image, np.float64)
    if name == "dim":
        pixels = pixels * np.array([0.62, 0.5, 0.38])
    else:
        pixels = pixels.mean(2, keepdims=True).repeat(3, 2) + rng.normal(0, 28, (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def encoded(data: Path, cache: Path) -> dict[str, Any]:
    """Return unit features by ``set/class`` and ``set/class/kind``, from the cache or by encoding all photos."""
    if (path := cache / "features.npz").exists():
        return dict(np.load(path))
    from PIL import Image

    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.classifier import Classifier
    from sar_train.clip import backbone
    from sar_train.data.feature_file import DEMO_FILE, load_features

    classifier, rng = Classifier(open_bundle(None)), np.random.default_rng(0)
    rows: dict[str, Any] = {}

    def embed(folder: Path, key: str, kinds: tuple[str, ...], tested: int = 0) -> None:
        files = sorted(folder.glob("*.jpg"))
        images = [Image.open(files[i]).convert("RGB") for i in np.random.default_rng(0).permutation(len(files))]
        rows[key] = classifier.embed_images(images)
        images = images[-tested:]
        for kind in kinds:
            rows[f"{key}/{kind}"] = classifier.embed_images([filtered(image, kind, rng) for image in images])
        command.say(f"{key}: {len(files)}")

    for folder in sorted((data / "clothes" / "train").iterdir()):
        embed(folder, f"garments/{folder.name}", ())
        embed(data / "clothes" / "test" / folder.name, f"garments/{folder.name}/test", FILTERS)
    for folder in sorted((data / "dtd" / "images").iterdir()):
        embed(folder, f"dtd/{folder.name}", FILTERS, 50)
    for domain in ("photo", "cartoon", "sketch"):
        for folder in sorted((data / "pacs" / domain).iterdir()):
            embed(folder, f"pacs/{folder.name}" + (f"/{domain}" if domain != "photo" else ""), ())
    demo = load_features(DEMO_FILE)
    for split in ("train", "test"):
        features, labels = demo.plain(split).numpy(), demo.labels(split).numpy()
        for label, name in enumerate(demo.dataset.class_names):
            rows[f"caltech/{name}" + ("/test" if split == "test" else "")] = features[labels == label]
    model = backbone.load("sar-mini")
    for name, (template, *_) in SETS.items():
        rows[f"text/{name}"] = model.embed_names(classes_of(rows, name), template).numpy()
    rows["text/few"] = model.embed_names(FEW, "a photo of a {} part.").numpy()
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(path, **rows)
    return rows


def classes_of(rows: dict[str, Any], name: str) -> list[str]:
    """Return the class names of a set."""
    return sorted({key.split("/")[1] for key in rows if key.startswith(name + "/")})


@dataclass(frozen=True)
class Photos:
    """Unit features (N, D) with labels (N,)."""

    rows: Any
    labels: Any

    @classmethod
    def of(cls, rows: list[Any]) -> Photos:
        """Return the photos of classes in turn."""
        return cls(np.concatenate(rows).astype(np.float64), np.repeat(np.arange(len(rows)), [len(r) for r in rows]))

    def where(self, flags: Any) -> Photos:
        """Return some of them."""
        return Photos(self.rows[flags], self.labels[flags])


@dataclass(frozen=True)
class Draw:
    """One draw of a set: trained classes come first in ``text``; ``pool`` has the photos of added classes."""

    name: str
    number: int
    trained: int
    names: list[str]
    text: Any
    train: Photos
    pool: list[Any]
    tests: dict[str, Photos]

    def bank(self, photos: int, seed: int) -> tuple[Any, Any]:
        """Return mean photos (C, D) and their numbers (C,): all of trained classes, so many of added ones."""
        rng = np.random.default_rng(seed)
        means, counts = np.zeros(self.text.shape), np.zeros(len(self.text), np.int64)
        for c in range(self.trained):
            means[c], counts[c] = self.train.rows[self.train.labels == c].mean(0), (self.train.labels == c).sum()
        for c, rows in enumerate(self.pool, self.trained):
            if photos:
                shown = rows[rng.permutation(len(rows))[:photos]]
                means[c], counts[c] = shown.mean(0), len(shown)
        return means, counts


def draws(
    rows: dict[str, Any],
    name: str,
    deal: str,
    count: int,
    sizes: tuple[int, int] | None = None,
    shots: int = SHOTS,
) -> Iterator[Draw]:
    """Yield the draws of a set in a deal, with other numbers of trained and added classes than usual if given."""
    names, (trained, added) = classes_of(rows, name), sizes or SETS[name][1:]
    order = np.random.default_rng(1).permutation(len(names))
    halves = order[: len(names) // 2], order[len(names) // 2 :]
    first = deal == "choosing"
    ours, other = halves if first else halves[::-1]

    def cut(key: str, limits: tuple[int, int, int]) -> Any:
        return rows[key][limits[0] : limits[1]] if first else rows[key][limits[1] : limits[2]]

    def photos(c: int, kind: str) -> Any:
        key = f"{name}/{names[c]}"
        if name in ("garments", "caltech"):
            return rows[key] if kind == "pool" else cut(f"{key}/test" + (f"/{kind}" if kind else ""), (0, 7, 99))
        if name == "dtd":
            if kind in FILTERS:
                return cut(f"{key}/{kind}", (0, 25, 50))
            return cut(key, (0, 35, 70)) if kind == "pool" else cut(key, (70, 95, 120))
        if kind in ("cartoon", "sketch"):
            return cut(f"{key}/{kind}", (0, 20, 60))
        return cut(key, (0, 17, 36)) if kind == "pool" else cut(key, (36, 46, 60))

    kinds = {"garments": ("", *FILTERS), "dtd": ("", *FILTERS), "pacs": ("", "cartoon", "sketch")}.get(name, ("",))
    for number in range(count):
        rng = np.random.default_rng([number, first])
        new = rng.permutation(ours)[:added].tolist()
        rest = [c for c in [*rng.permutation(other), *rng.permutation(ours)] if c not in new]
        classes = [*rest[:trained], *new]
        learned = [rng.permutation(photos(c, "pool"))[:shots] for c in classes[:trained]]
        yield Draw(
            name,
            number,
            trained,
            [names[c] for c in classes],
            rows[f"text/{name}"][classes].astype(np.float64),
            Photos.of(learned),
            [photos(c, "pool") for c in new],
            {kind: Photos.of([photos(c, kind) for c in classes]) for kind in kinds},
        )


class Model:
    """The class model."""

    def __init__(self, train: Photos, text: Any, seed: int) -> None:
        self.fitted = cross_validation.fit(train.rows, train.labels, text, SCALE, seed=seed)
        self.model = self.fitted.model

    def _logs(self, x: Any, text: Any, means: Any, counts: Any, shift: Any = None) -> Any:
        return log_probabilities(scores_of(self.model, x, *linear(self.model, text, means, counts, shift=shift)))

    def answers(self, x: Any, text: Any, means: Any, counts: Any) -> tuple[Any, Any, Any]:
        """Return log probabilities (N, C), how strange images (N,) are, and flags of those called unknown."""
        logs = self._logs(x, text, means, counts)
        classes = log_probabilities(logs[:, :-1])
        limits = self.model.unknown_threshold(counts)[classes.argmax(1)]
        return classes, logs[:, -1], np.exp(logs[:, -1]) > limits

    def adapted(self, x: Any, text: Any, means: Any, counts: Any, stream: Any, all_known: bool) -> Any:
        """Return scores (N, C) after adapting to a stream."""
        known = adapt.Classes(text, means, counts.astype(np.float64), np.ones(len(text), np.bool_))
        learned = adapt.adapt(self.model, known, stream, all_known=all_known)
        now = learned.classes(known)
        return self._logs(x, text, now.means, now.counts, learned.translation)[:, :-1]


def ranking(logs: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return flags of right answers (N,), and accuracy in per cent, nats, and calibration error less that of chance."""
    right, scores = logs.argmax(1) == labels, np.exp(logs.max(1))
    error = 100 * (calibration_error(scores, right) - calibration_error_by_chance(scores))
    return right, (100 * right.mean(), -logs[np.arange(len(right)), labels].mean(), error)


def accuracies(right: Any, labels: Any, trained: int) -> tuple[float, float, float]:
    """Return accuracy on trained and added classes and their harmonic mean, in per cent."""
    base, new = (100 * float(right[side].mean()) for side in (labels < trained, labels >= trained))
    return base, new, 2 * base * new / max(base + new, 1e-9)


UNKNOWN = ("near", "far", "near at 5", "far at 5", "false alarms", "near rejected", "far rejected")
FIGURES = ("base", "new", "h", "accuracy", "nll", "ece", "auroc", "false_alarms", "rejected")


def smaller_banks(draw: Draw, test: Photos, photos: int) -> Iterator[tuple[Any, tuple[Any, Any, Any]]]:
    """Yield flags of known images, and text, mean photos and numbers without half of the added classes, four times."""
    others = np.arange(draw.trained, len(draw.text))
    for half in range(4):
        added = np.sort(np.random.default_rng(half).permutation(others)[: (len(others) + 1) // 2])
        columns = np.r_[np.arange(draw.trained), added]
        means, counts = draw.bank(photos, half)
        yield np.isin(test.labels, columns), (draw.text[columns], means[columns], counts[columns])


def by_names(draw: Draw, kind: str, system: Model, photos: int) -> Any:
    """Return the figures (9,) of a test set with so many photos of each added class."""
    test, figures = draw.tests[kind], []
    for shown in range(SHOWN if photos else 1):
        logs, _, _ = system.answers(test.rows, draw.text, *draw.bank(photos, shown))
        right, values = ranking(logs, test.labels)
        figures.append((*accuracies(right, test.labels, draw.trained), *values))
    unknown = []
    for known, bank in smaller_banks(draw, test, photos):
        _, strange, called = system.answers(test.rows, *bank)
        alarms = 100 * called[known].mean(), 100 * called[~known].mean()
        unknown.append((auroc(strange[~known], strange[known]), *alarms))
    return np.r_[np.mean(figures, axis=0), np.mean(unknown, axis=0)]


def by_promise(rows: dict[str, Any], name: str, deal: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of expected and measured accuracies (0 to 1), by number of photos of added classes."""
    for draw in draws(rows, name, deal, count, (5, 5) if SETS[name][1] == 6 else None):
        system, test = Model(draw.train, draw.text[: draw.trained], 0), draw.tests[""]
        added, own = test.labels >= draw.trained, np.arange(draw.trained)
        means, counts = draw.bank(0, 0)
        alone = system.answers(test.rows[~added], draw.text[own], means[own], counts[own])[0].argmax(1)
        for number, _, expected in system.model.expected.tolist():
            right = [
                system.answers(test.rows[added], draw.text, *draw.bank(int(number), seed))[0].argmax(1)
                == test.labels[added]
                for seed in range(SHOWN if number else 1)
            ]
            trained = system.model.expected[-1, 1], (alone == test.labels[~added]).mean()
            values = np.round([*trained, expected, np.mean(right)], 4).tolist()
            yield ("model", "promise", deal, name, "photos", draw.number, int(number), *values, *[""] * 5)


def by_alone(rows: dict[str, Any], name: str, deal: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield accuracies on trained classes: by name, of the class model, and of a linear probe without validation."""
    import torch

    from sar_train.evaluation.linear_probe import linear_probe

    for draw in draws(rows, name, deal, count):
        test, own = draw.tests[""].where(draw.tests[""].labels < draw.trained), np.arange(draw.trained)
        means, counts = draw.bank(0, 0)
        system = Model(draw.train, draw.text[own], 0)
        logs = system.answers(test.rows, draw.text[own], means[own], counts[own])[0], test.rows @ draw.text[own].T
        fitted, named = (100 * (scores.argmax(1) == test.labels).mean() for scores in logs)
        tensors = [torch.tensor(one) for one in (draw.train.rows, draw.train.labels, test.rows, test.labels)]
        features = tensors[0].float()[:, None]
        probe = linear_probe(features, tensors[1], tensors[2].float(), tensors[3], val=None, seed=0)
        values = np.round([named, fitted, probe], 2).tolist()
        yield ("model", "alone", deal, name, "photos", draw.number, SHOTS, *values, *[""] * 6)


def by_trained(rows: dict[str, Any], name: str, deal: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield accuracies on trained classes of a learned prompt (CoOp with SAR), by itself and with the class model."""
    import torch

    from sar_train import train
    from sar_train.clip import backbone
    from sar_train.data.dataset import Dataset, Split
    from sar_train.data.feature_file import StoredFeatures, labelled, save_features

    model = backbone.load("sar-mini")
    for draw in draws(rows, name, deal, count):
        test = draw.tests[""].where(draw.tests[""].labels < draw.trained)
        sides: dict[Split, Photos] = {"train": draw.train, "test": test}
        dataset = Dataset(
            name,
            tuple(draw.names[: draw.trained]),
            splits=labelled({side: torch.tensor(photos.labels) for side, photos in sides.items()}),
            template=SETS[name][0],
        )
        features = {side: torch.tensor(photos.rows).float() for side, photos in sides.items()}
        stored = StoredFeatures(dataset, model.name, model.weights_digest, model.preprocess, features)
        with tempfile.TemporaryDirectory() as folder:
            save_features(stored, path := Path(folder) / f"{name}.safetensors")
            record = train(path, out=Path(folder) / "run", prompt="learned", protocol="all", shots=SHOTS).record
        values = [record["metrics"], record["other_metrics"]["statistics"]]
        accuracy = np.round([one["base_accuracy"] for one in values], 2).tolist()
        command.say(f"{name} {draw.number}: {accuracy}")
        yield ("model", "trained", deal, name, "photos", draw.number, SHOTS, *accuracy, *[""] * 7)


def seconds(rows: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield sizes and seconds of processor time of fits, of an image, and of the distance of *unknown*."""
    from PIL import Image

    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.classifier import Classifier
    from sar_infer.classify.composer import Unknown

    texts = open_bundle(None).bank.embeddings.astype(np.float64)
    rivals = Rivals(texts, np.zeros_like(texts), np.zeros(len(texts)))
    for name, classes in (("garments", 6), ("caltech", 100)):
        train = Photos.of([rows[f"{name}/{one}"][:SHOTS] for one in classes_of(rows, name)[:classes]])
        for others in (None, rivals):
            began = time.process_time()
            fitted = cross_validation.fit(
                train.rows, train.labels, rows[f"text/{name}"][:classes], SCALE, rivals=others
            )
            among = "" if others is None else f" among {len(texts):,} names"
            yield f"{classes} x {SHOTS} photos{among}", f"{time.process_time() - began:.1f}"
    model, image, one = fitted.model, Image.new("RGB", (640, 480)), train.rows[:1].astype(np.float32)
    weights, bias = linear(model, texts[:1], texts[:1], np.ones(1))
    with_distance = Unknown(weights[-1], float(bias[-1]), model.axes, model.gain)
    without, classifier = dataclasses.replace(with_distance, gain=0.0), Classifier(open_bundle(None))
    steps = (lambda: classifier.embed_images([image])), (lambda: without.scores(one)), lambda: with_distance.scores(one)
    spent = np.zeros((51, 3))
    for turn, (number, step) in product(range(len(spent)), enumerate(steps)):
        began = time.process_time()
        step()
        spent[turn, number] = time.process_time() - began
    encoding, plain, whole = np.median(spent, axis=0)
    yield "an image: encoded, and its score of unknown without the distance", f"{encoding + plain:.6f}"
    share = (
        f"the distance, {(whole - plain) / (encoding + plain):.2%} of it and {model.axes.nbytes / 1024:g} KiB a bank"
    )
    yield share, f"{whole - plain:.6f}"


def of_few(draw: Draw, order: Any, text: Any, photos: int) -> tuple[Model, tuple[Any, Any, Any], Any]:
    """Return the model of two or three classes, their text, mean photos and numbers, and flags of their test photos."""
    pool = [*(draw.train.rows[draw.train.labels == c] for c in range(draw.trained)), *draw.pool]
    train = Photos.of([pool[c][:photos] for c in order])
    means, counts = np.array([pool[c][:photos].mean(0) for c in order]), np.full(len(order), photos)
    return Model(train, text, 0), (text, means, counts), np.isin(draw.tests[""].labels, order)


def by_few(rows: dict[str, Any], name: str, deal: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows for two and three classes that are named as parts are, by 2, 4 and 16 photos; others are unknown."""
    for draw, classes, photos in product(draws(rows, name, deal, count), (2, 3), (2, 4, 16)):
        figures, text, test = [], rows["text/few"][:classes].astype(np.float64), draw.tests[""]
        for pick in range(6):
            order = np.random.default_rng(pick).permutation(len(draw.text))[:classes]
            system, bank, known = of_few(draw, order, text, photos)
            logs, strange, called = system.answers(test.rows, *bank)
            truth = np.argsort(order)[np.searchsorted(np.sort(order), test.labels[known])]
            right, values = ranking(logs[known], truth)
            sides = 100 * right[truth == 0].mean(), 100 * right[truth != 0].mean(), 0.0
            alarms = 100 * called[known].mean(), 100 * called[~known].mean()
            figures.append((*sides, *values, auroc(strange[~known], strange[known]), *alarms))
        mean = [round(float(figure), 4) for figure in np.mean(figures, axis=0)]
        yield ("model", f"{classes} classes", deal, name, "photos", draw.number, photos, *mean)


def unknown_figures(system: Model, images: tuple[Any, Any, Any], bank: tuple[Any, Any, Any]) -> Any:
    """Return `UNKNOWN` (7,) of known, near and far images (·, D)."""
    known, near, far = (system.answers(rows, *bank)[1:] for rows in images)
    limit = np.quantile(known[0], 0.95)
    areas = [auroc(side[0], known[0]) for side in (near, far)]
    shares = [(side[0] > limit).mean() for side in (near, far)]
    return np.array([*areas, *(100 * s for s in shares), *(100 * side[1].mean() for side in (known, near, far))])


def by_unknown(draw: Draw, few: Any, strangers: Any) -> Iterator[tuple[Any, ...]]:
    """Yield kind of images, photos of added classes and `UNKNOWN` (7,); half of the added classes are absent."""
    system = Model(draw.train, draw.text[: draw.trained], draw.number)
    for kind, test in draw.tests.items():
        for photos in ADDED if not kind else (2,):
            figures = []
            for known, bank in smaller_banks(draw, test, photos):
                images = test.rows[known], test.rows[~known], strangers
                figures.append(unknown_figures(system, images, bank))
            yield kind or "photos", photos, np.mean(figures, axis=0)
    for classes, photos in product((2, 3), (2, 4, 16)):
        figures = []
        for pick in range(6):
            order = np.sort(np.random.default_rng(pick).permutation(len(draw.text))[:classes])
            system, bank, known = of_few(draw, order, few[:classes], photos)
            images = draw.tests[""].rows[known], draw.tests[""].rows[~known], strangers
            figures.append(unknown_figures(system, images, bank))
        yield f"{classes} classes", photos, np.mean(figures, axis=0)


def stream(test: Photos, half: Any, kind: str, trained: int, strangers: Any, rng: Any) -> Any:
    """Return the rows (N, D) of a stream from half of the test photos, and strangers."""
    labels, classes = test.labels[half], int(test.labels.max()) + 1
    if kind == "quarter":
        half = half[np.isin(labels, rng.permutation(classes)[: -(-classes // 4)])]
    elif kind in ("trained", "added"):
        half = half[(labels < trained) == (kind == "trained")]
    elif kind == "skewed":
        chance = (1 + 6 * rng.permutation(classes) / classes) ** -1.5
        half = half[rng.random(len(half)) < chance[labels]]
    elif kind == "twenty":
        half = rng.permutation(half)[:20]
    rows = test.rows[half]
    return np.concatenate([rows, rng.permutation(strangers)[: len(half)]]) if kind == "unknown" else rows


def by_streams(draw: Draw, kind: str, system: Model, strangers: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield photos, stream and (before, after, after with all known) H, over both halves of a test."""
    test, rng = draw.tests[kind], np.random.default_rng(draw.number)
    halves = np.array_split(rng.permutation(len(test.labels)), 2)
    for photos in (0, 2):
        means, counts = draw.bank(photos, draw.number)
        collected: dict[str, list[Any]] = defaultdict(list)
        for seen, rest in (halves, halves[::-1]):

            def harmonic(scores: Any, rest: Any = rest) -> float:
                return accuracies(scores.argmax(1) == test.labels[rest], test.labels[rest], draw.trained)[2]

            for name in STREAMS:
                rows = stream(test, seen, name, draw.trained, strangers, rng)
                bank = (draw.text, means, counts)
                before = harmonic(system.answers(test.rows[rest], *bank)[0])
                after = [harmonic(system.adapted(test.rows[rest], *bank, rows, plain)) for plain in (False, True)]
                collected[name].append((before, *after))
        yield from ((photos, name, np.mean(values, axis=0)) for name, values in collected.items())


def long_table(rows: dict[str, Any], deal: str, count: int) -> str:
    """Return accuracies before and after long streams, and the worst loss of added classes in a draw, in Markdown."""
    cells: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for sizes in ((40, 40), (20, 40)):
        for draw in draws(rows, "caltech", deal, count, sizes):
            system, test = Model(draw.train, draw.text[: draw.trained], draw.number), draw.tests[""]
            rng, bank = np.random.default_rng(draw.number), (draw.text, *draw.bank(0, 0))
            halves = np.array_split(rng.permutation(len(test.labels)), 2)
            for (seen, rest), kind in product((halves, halves[::-1]), ("trained", "all")):
                half, photos = test.where(rest), stream(test, seen, kind, draw.trained, test.rows[:0], rng)
                for times in (1, 10, 50):
                    shown = np.tile(photos, (times, 1))
                    scores = system.answers(half.rows, *bank)[0], system.adapted(half.rows, *bank, shown, False)
                    sides = [accuracies(s.argmax(1) == half.labels, half.labels, draw.trained)[:2] for s in scores]
                    cells["{} + {}".format(*sizes), kind, times].append(np.array(sides).T.ravel())
    heads = ("classes", "stream", "times", "trained before", "after", "added before", "after", "worst")
    lines = [(*key, *np.mean(v, axis=0), np.min(np.diff(v)[:, 2])) for key, v in cells.items()]
    return command.markdown(heads, [(*line[:3], *(f"{value:.1f}" for value in line[3:])) for line in lines])


def gains_table(rows: dict[str, Any], names: list[str], deal: str, count: int) -> str:
    """Return H, accuracy and nats before decision 44 and their changes with 95 % intervals over draws, in Markdown.

    With 16 photos of each trained class its prior of P is undone, with fewer its rules for few photos. Figures are
    means over by name, 1, 2 and 4 photos of added classes.
    """
    from sar_train.report.scores import half_width

    lines = []
    for shots, name in product((SHOTS, 2, 1), names):
        prior, pairs = 1.0 if shots == SHOTS else of_model.SHRINKAGE, []
        for draw in draws(rows, name, deal, count, shots=shots):
            trained = draw.train, draw.text[: draw.trained], 0
            with (
                patch.object(of_model, "SHRINKAGE", prior),
                patch.object(of_model, "_LEAST_PRIOR", 0.0),
                patch.object(
                    folds, "gaussian", lambda *args, **named: of_model.gaussian(*args, **named | {"spread": 0.0})
                ),
            ):
                before = Model(*trained)
            both = [[by_names(draw, "", one, photos)[2:5] for photos in PHOTOS] for one in (before, Model(*trained))]
            pairs.append(np.mean(both, axis=1))
            command.say(f"{shots} photos, {name} {draw.number}")
        cells = []
        for values, digits in zip(np.transpose(pairs), (1, 1, 3), strict=True):
            change = values[1] - values[0]
            cells += [
                f"{values[0].mean():.{digits}f}",
                f"{change.mean():+.{digits}f} ± {half_width(change):.{digits}f}",
            ]
        lines.append((shots, name, *cells))
    return command.markdown(("photos", "set", "H", "change", "accuracy", "change", "nats", "change"), lines)


def unknown_table(cells: dict[tuple[str, str, int], list[Any]]) -> str:
    """Return `UNKNOWN` by set, images and photos, and means over cells of a kind, in Markdown."""
    lines = {key: np.mean(values, axis=0) for key, values in cells.items()}
    kinds: dict[str, list[Any]] = defaultdict(list)
    for (_, images, _), values in lines.items():
        kinds["another camera" if images in (*FILTERS, "cartoon", "sketch") else images].append(values)
    means: dict[Any, Any] = {("mean", kind, ""): np.mean(values, axis=0) for kind, values in kinds.items()}
    return command.markdown(
        ("set", "images", "photos", *UNKNOWN),
        [
            (*key, *(f"{v:.3f}" for v in values[:2]), *(f"{v:.1f}" for v in values[2:]))
            for key, values in [*lines.items(), *means.items()]
        ],
    )


TABLES = {"few": by_few, "promise": by_promise, "alone": by_alone, "trained": by_trained}


def main() -> None:
    """Measure and write CSV."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        cache=Path(tempfile.gettempdir()) / "sar-class-model",
        deal="reporting",
        what=["names"],
        sets=list(SETS),
        draws=5,
        shots=SHOTS,
        out=(Path, "write CSV here"),
    )
    rows = encoded(args.data, args.cache)
    tables = {
        "seconds": lambda: command.markdown(("fit", "seconds"), seconds(rows)),
        "long": lambda: long_table(rows, args.deal, args.draws),
        "gains": lambda: gains_table(rows, args.sets, args.deal, args.draws),
    }
    if args.what[0] in tables:
        command.tell(tables[args.what[0]](), None, args.out)
        return
    table: list[tuple[Any, ...]] = []
    cells: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    started = time.perf_counter()
    for name in args.sets:
        strangers = [
            next(draws(rows, other, args.deal, 1)).tests[""].rows[:: 1 if other != "caltech" else 3]
            for other in SETS
            if other != name
        ]
        for what in sorted(TABLES.keys() & args.what):
            table += TABLES[what](rows, name, args.deal, args.draws)
        if "unknown" in args.what:
            few = rows["text/few"].astype(np.float64)
            for draw in draws(rows, name, args.deal, args.draws, shots=args.shots):
                for kind, photos, values in by_unknown(draw, few, np.concatenate(strangers)):
                    cells[name, kind, photos].append(values)
        if not {"names", "streams"} & {*args.what}:
            continue
        for draw in draws(rows, name, args.deal, args.draws, shots=args.shots):
            fitted = Model(draw.train, draw.text[: draw.trained], 0)
            for kind in draw.tests:
                cell = (args.deal, name, kind or "photos", draw.number)
                if "names" in args.what:
                    for photos in PHOTOS:
                        values = by_names(draw, kind, fitted, photos)
                        table.append(("model", "names", *cell, photos, *np.round(values, 4).tolist()))
                if "streams" in args.what:
                    for photos, one, values in by_streams(draw, kind, fitted, np.concatenate(strangers)):
                        table.append(("model", one, *cell, photos, *np.round(values, 2).tolist()))
            command.say(f"{name} {draw.number}: {time.perf_counter() - started:.0f} s")
    if cells:
        command.tell(unknown_table(cells), None, args.out)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("system", "what", "deal", "set", "kind", "draw", "photos", *FIGURES), *table]
    )
    command.tell(text.getvalue()) if args.out is None else args.out.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
