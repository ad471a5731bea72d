"""Several classes in one image, or none: mean average precision, precision, recall and empty answers, with `sar-mini`.

    python -m benchmarks.several [--deal choosing|reporting] [--sets garments caltech dtd pacs] [--draws 2]
        [--images 40] [--out FILE]

Sets, deals and draws are those of `benchmarks.class_model`. A bank has 16 photos of each trained class; images are made
of test photos of its classes, each photo of another class:

- single: one photo
- 1x2, 2x2: two or four photos side by side
- paste: one or two photos, .3 to .6 of the side, on a photo of another set
- near, far: one photo of a class of the set that the bank does not have, or of another set

Rules are the softmax of the whole image, the same with *unknown* inside, and the largest probability of the whole image
and its quarters, which meet or overlap by a fifth of their side, with *unknown* inside. Figures are in per cent:
mean average precision by kind of image; precision and recall of all images with labels, yes being above a half, or .7;
accuracy of the best class of single photos; and the share of images of none that get no label.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_model import SETS, draws

KINDS = ("single", "1x2", "2x2", "paste", "near", "far")
SHOWN = ("1x2", "2x2", "paste")
RULES = ("softmax", "whole image", "quarters", "quarters, .7", "overlapping")
FIGURES = (*SHOWN, "shown", "all", "precision", "recall", "single", "near", "far")
SIDE = 224
FIFTH = 5 / 9
"""Side of a quarter that shares a fifth of it with the next one."""


def files_of(data: Path) -> dict[str, list[Path]]:
    """Return the photos by ``set/class`` and ``set/class/kind``, in the order of `benchmarks.class_model.encoded`."""
    files: dict[str, list[Path]] = {}

    def add(key: str, photos: list[Path]) -> None:
        files[key] = [photos[i] for i in np.random.default_rng(0).permutation(len(photos))]

    for folder in sorted((data / "clothes" / "train").iterdir()):
        add(f"garments/{folder.name}", sorted(folder.glob("*.jpg")))
        add(f"garments/{folder.name}/test", sorted((data / "clothes" / "test" / folder.name).glob("*.jpg")))
    for name, root in (("dtd", "dtd/images"), ("pacs", "pacs/photo")):
        for folder in sorted((data / root).iterdir()):
            add(f"{name}/{folder.name}", sorted(folder.glob("*.jpg")))
    split = json.loads((data / "caltech-101" / "split_zhou_Caltech101.json").read_text("utf-8"))
    for part, suffix in (("train", ""), ("test", "/test")):
        photos: dict[str, list[Path]] = defaultdict(list)
        for path, _, name in split[part]:
            photos[name].append(data / "caltech-101" / "101_ObjectCategories" / path)
        for name, of_class in photos.items():
            add(f"caltech/{name.replace('_', ' ')}{suffix}", of_class)
    return files


class Photos:
    """Photos by number, so that `draws` deals numbers."""

    def __init__(self, data: Path) -> None:
        files = files_of(data)
        self.paths = [path for of_class in files.values() for path in of_class]
        starts = np.cumsum([0, *map(len, files.values())])
        ends = zip(files, starts.tolist(), starts[1:].tolist(), strict=False)
        self.rows = {key: np.arange(start, end, dtype=np.float64)[:, None] for key, start, end in ends}
        for name in SETS:
            classes = {key.split("/")[1] for key in files if key.startswith(f"{name}/")}
            self.rows[f"text/{name}"] = np.zeros((len(classes), 1))
        for key in [*self.rows]:  # `draws` cuts the photos of other cameras too, which are not used here
            for kind in ("dim", "grey", "poster", "cartoon", "sketch"):
                self.rows[f"{key}/{kind}"] = self.rows[key]

    def of(self, rows: Any) -> list[Path]:
        """Return the paths of dealt numbers (N, 1)."""
        return [self.paths[int(number)] for number in rows[:, 0]]


def square(path: Path, side: int = SIDE) -> Any:
    """Return the middle of a photo as a square."""
    from PIL import Image, ImageOps

    return ImageOps.fit(Image.open(path).convert("RGB"), (side, side))


def image_of(kind: str, by_class: list[list[Path]], near: list[Path], far: list[Path], rng: Any) -> tuple[Any, Any]:
    """Return an image (PIL) of a kind, and the classes that it shows."""
    from PIL import Image

    counts = {"single": 1, "1x2": 2, "2x2": 4, "paste": int(rng.integers(1, 3)), "near": 0, "far": 0}
    shown = rng.permutation(len(by_class))[: counts[kind]]
    photos = [by_class[c][rng.integers(len(by_class[c]))] for c in shown]
    if kind in ("single", "near", "far"):
        pool = photos if kind == "single" else near if kind == "near" else far
        return Image.open(pool[rng.integers(len(pool))]).convert("RGB"), shown
    if kind == "paste":
        canvas = square(far[rng.integers(len(far))], 2 * SIDE)
        for number, photo in enumerate(photos):
            side = round(2 * SIDE * rng.uniform(0.3, 0.6 if len(photos) == 1 else 0.5))
            room = 2 * SIDE - side if len(photos) == 1 else SIDE - side  # two stand side by side
            left, top = number * SIDE + rng.integers(room + 1), rng.integers(2 * SIDE - side + 1)
            canvas.paste(square(photo, side), (int(left), int(top)))
        return canvas, shown
    canvas = Image.new("RGB", (2 * SIDE, SIDE if kind == "1x2" else 2 * SIDE))
    for number, photo in enumerate(photos):
        canvas.paste(square(photo), (SIDE * (number % 2), SIDE * (number // 2)))
    return canvas, shown


def crops(image: Any, spec: Any) -> Any:
    """Return the encoder's inputs (9, 3, S, S): the image, its quarters, and its overlapping quarters."""
    from sar_infer.images.preprocess import crops_to_input, to_input

    width, height = (round(side * FIFTH) for side in image.size)
    right, below = image.width - width, image.height - height
    corners = [(0, 0), (right, 0), (0, below), (right, below)]
    wider = [to_input(image.crop((x, y, x + width, y + height)), spec) for x, y in corners]
    return np.concatenate([crops_to_input(image, spec), np.stack(wider)])


def probabilities(logits: Any) -> dict[str, Any]:
    """Return by rule the values (N, C) of images, from the logits (N, 9, C + 1) of their crops."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    classes, joint = powers[..., :-1], powers[..., :-1] / powers.sum(-1, keepdims=True)
    whole = (classes / classes.sum(-1, keepdims=True))[:, 0]
    return {
        "softmax": whole,
        "whole image": joint[:, 0],
        "quarters": joint[:, :5].max(1),
        "quarters, .7": joint[:, :5].max(1) * (0.5 / 0.7),
        "overlapping": joint[:, [0, 5, 6, 7, 8]].max(1),
    }


def mean_average_precision(values: Any, shows: Any) -> float:
    """Return the mean over classes (columns) that are shown of the average precision, in per cent."""
    from sklearn.metrics import average_precision_score

    columns = [c for c in range(shows.shape[1]) if shows[:, c].any()]
    return 100 * float(np.mean([average_precision_score(shows[:, c], values[:, c]) for c in columns]))


def figures(values: Any, shows: Any, kinds: Any) -> list[float]:
    """Return `FIGURES` of values (N, C), for images that show classes (N, C) and are of kinds (N,)."""
    precisions = [mean_average_precision(values[kinds == kind], shows[kinds == kind]) for kind in SHOWN]
    yes, labelled = values > 0.5, np.isin(kinds, (*SHOWN, "single"))
    hits = (yes & shows)[labelled].sum()
    single = kinds == "single"
    right = (values[single].argmax(1) == shows[single].argmax(1)).mean()
    empty = [100 * float(1 - yes[kinds == kind].any(1).mean()) for kind in ("near", "far")]
    shares = (hits / max(1, yes[labelled].sum()), hits / shows[labelled].sum(), right)
    several = np.isin(kinds, SHOWN)
    precisions += [mean_average_precision(values[several], shows[several]), mean_average_precision(values, shows)]
    return [*precisions, *(100 * float(share) for share in shares), *empty]


def main() -> None:
    """Measure and print a table."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        deal="reporting",
        sets=list(SETS),
        draws=2,
        images=40,
        out=(Path, "write here"),
    )
    from sar_infer.classifier import Classifier
    from sar_infer.classify import ranking

    classifier, photos = Classifier(device="cpu"), Photos(args.data)
    spec, cells = classifier.bundle.manifest.preprocess, defaultdict[tuple[str, str], list[Any]](list)
    for name in args.sets:
        others = [next(draws(photos.rows, other, args.deal, 1)).tests[""].rows for other in SETS if other != name]
        far = photos.of(np.concatenate(others))
        for draw in draws(photos.rows, name, args.deal, args.draws):
            rng, test = np.random.default_rng([draw.number, args.deal == "choosing"]), draw.tests[""]
            by_class = [photos.of(test.rows[test.labels == c]) for c in range(draw.trained)]
            near = photos.of(test.rows[test.labels >= draw.trained])
            train = [photos.of(draw.train.rows[draw.train.labels == c]) for c in range(draw.trained)]
            bank = classifier.create(dict(zip(draw.names, train, strict=False)))
            classes = classifier.class_set(bank=bank)
            kinds = np.repeat(KINDS, args.images)
            shows, logits = np.zeros((len(kinds), draw.trained), np.bool_), []
            for row, kind in enumerate(kinds):
                image, shown = image_of(kind, by_class, near, far, rng)
                shows[row, shown] = True
                logits.append(ranking.logits(classifier.embed_inputs([crops(image, spec)]), classes))
            for rule, values in probabilities(np.stack(logits).astype(np.float64)).items():
                cells[name, rule].append(figures(values, shows, kinds))
            command.say(f"{name} {draw.number}")
    rows = [(name, rule, *np.mean(cells[name, rule], axis=0)) for name in args.sets for rule in RULES]
    rows += [
        ("mean", rule, *np.mean([np.mean(cells[name, rule], axis=0) for name in args.sets], axis=0)) for rule in RULES
    ]
    table = [(*row[:2], *(f"{value:.1f}" for value in row[2:])) for row in rows]
    command.tell(command.markdown(("set", "rule", *FIGURES), table), None, args.out)


if __name__ == "__main__":
    main()
