"""``sar-bundle compare`` on real photos: is the better encoder named, and is the accuracy with twice the photos right?

    python -m benchmarks.compare [--deal choosing|reporting] [--sets garments caltech dtd pacs] [--draws 10]
        [--cache FOLDER] [--seconds] [--out FILE.md]

Encoders: ``sar-mini``, the same in INT8, ``sar-mini-vit`` and ``sar-mini``'s network with random weights. A draw has 16
photos of each class, or 8; all others of a set are held out. *Clear* is a pair of encoders whose accuracies on held-out
photos differ by more than twice half the width of the interval of their difference. A clear pair should be named, and
no pair wrongly: the sign of the cross-validated difference, if its interval excludes 0, is that of the held-out one.

*Twice* compares the estimate with the accuracy on photos that are held out from twice as many. Constants of
``sar_infer.evaluation.curve`` were chosen on ``choosing``: PACS' cartoons and 20 classes of Caltech101, of which
``reporting`` has 20 others. Embeddings are cached; ``--seconds`` times the command on 6 x 16 photos and three bundles.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_model import SCALE
from sar_infer.class_model.cross_validation import Fitted, fit, reworded
from sar_infer.class_model.model import linear, scores_of
from sar_infer.evaluation.curve import Curve, photo_curve
from sar_infer.measures import paired_difference

ENCODERS = ("sar-mini", "sar-mini-int8", "sar-mini-vit", "random")
SIZES = {"garments": (10, 31), "caltech": (40, 32), "dtd": (10, 60), "pacs": (7, 60), "cartoons": (7, 32)}
"""Classes and photos of each."""
SETS = {"choosing": ["cartoons", "caltech"], "reporting": ["garments", "caltech", "dtd", "pacs"]}
SHOTS, HELD_OUT = (16, 8), 8
"""Photos of a class in a draw, and the least that are held out."""


def bundles(data: Path, cache: Path) -> dict[str, Path]:
    """Return the bundle of each encoder, made where it is missing."""
    paths = {name: command.MINI if name == "sar-mini" else cache / "bundles" / name for name in ENCODERS}
    export = ["sar-export", "--handcrafted", "a photo of a {}.", "--quiet"]
    photos = ["--photos", str(data / "imagenet_sample")]
    calls = {
        "sar-mini-int8": ["sar-bundle", "shrink", str(command.MINI), "--precision", "int8", "--quiet", *photos],
        "sar-mini-vit": [*export, "--backbone", "sar-mini-vit"],
        "random": [*export, "--backbone", "sar-mini", "--pretrained", "random"],
    }
    for name, (program, *words) in calls.items():
        if not paths[name].exists():
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([Path(sys.executable).with_name(program), *words, "--out", paths[name]], check=True)
    return paths


def photos(data: Path) -> dict[str, list[Path]]:
    """Return the photos of ``set/class``, some of each."""
    roots = {
        "garments": [data / "clothes" / "train", data / "clothes" / "test"],
        "caltech": [data / "caltech-101" / "101_ObjectCategories"],
        "dtd": [data / "dtd" / "images"],
        "pacs": [data / "pacs" / "photo"],
        "cartoons": [data / "pacs" / "cartoon"],
    }
    result: dict[str, list[Path]] = {}
    for name, (classes, most) in SIZES.items():
        folders = sorted(one.name for one in roots[name][0].iterdir() if one.name != "BACKGROUND_Google")
        for folder in sorted(np.random.default_rng(1).permutation(folders)[:classes].tolist()):
            files = sorted(file for root in roots[name] for file in (root / folder).glob("*.jpg"))
            order = np.random.default_rng(0).permutation(len(files))[:most]
            result[f"{name}/{folder}"] = [files[i] for i in order]
    return result


def encoded(data: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Return unit embeddings by encoder and ``set/class``, and text rows by ``text/set/class``."""
    files = {name: cache / f"{name}.npz" for name in ENCODERS}
    if all(path.exists() for path in files.values()):
        return {name: dict(np.load(path)) for name, path in files.items()}
    from sar_infer.classifier import Classifier
    from sar_infer.images.prefetch import decode_image

    classifiers = {
        name: Classifier(path, precision="int8" if name.endswith("int8") else "fp32")
        for name, path in bundles(data, cache).items()
    }
    rows: dict[str, dict[str, Any]] = {name: {} for name in ENCODERS}
    for key, paths in photos(data).items():
        pixels: dict[Any, Any] = {}
        for name, classifier in classifiers.items():
            spec = classifier.bundle.manifest.preprocess
            if spec not in pixels:
                pixels[spec] = [decode_image(str(path), spec) for path in paths]
            chunks = [pixels[spec][at : at + 16] for at in range(0, len(paths), 16)]
            rows[name][key] = np.concatenate([classifier.embed_inputs(chunk) for chunk in chunks])
            rows[name][f"text/{key}"] = classifier.embed_names([key.partition("/")[2].replace("_", " ")])[0]
        command.say(f"{key}: {len(paths)}")
    for name, path in files.items():
        np.savez(path, **rows[name])
    return rows


def classes_of(rows: dict[str, Any], name: str, deal: str) -> list[str]:
    """Return ``set/class`` of a set; every other class of Caltech101 belongs to each deal."""
    keys = sorted(key for key in rows if key.startswith(f"{name}/"))
    return keys[deal == "reporting" :: 2] if name == "caltech" else keys


def held_out(fitted: Fitted, learned: Sequence[Any], tested: Sequence[Any], texts: Any) -> Any:
    """Return flags of the tested photos that are right, by class means and covariance of the learned ones."""
    labels, truth = (np.repeat(np.arange(len(texts)), [len(of) for of in side]) for side in (learned, tested))
    model = reworded(fitted.model, np.concatenate(learned), labels, texts)
    weights, bias = linear(model, texts, np.array([of.mean(0) for of in learned]), np.bincount(labels))
    return scores_of(model, np.concatenate(tested), weights, bias)[:, :-1].argmax(1) == truth


def draw(rows: dict[str, dict[str, Any]], keys: list[str], number: int, shots: int) -> dict[str, Any]:
    """Return curve, and flags of held-out photos with as many photos and with twice as many, by encoder."""
    rng = np.random.default_rng([number, shots])
    orders = [rng.permutation(len(rows["sar-mini"][key])) for key in keys]
    result: dict[str, tuple[Curve, Any, Any]] = {}
    for name, of_encoder in rows.items():
        texts = np.array([of_encoder[f"text/{key}"] for key in keys]).astype(np.float64)
        drawn = [of_encoder[key][order].astype(np.float64) for key, order in zip(keys, orders, strict=True)]
        first = np.concatenate([of[:shots] for of in drawn])
        labels = np.repeat(np.arange(len(keys)), shots)
        fitted = fit(first, labels, texts, SCALE)
        flags = [
            held_out(fitted, [of[:count] for of in drawn], [of[count:] for of in drawn], texts)
            if min(map(len, drawn)) >= count + HELD_OUT
            else None
            for count in (shots, 2 * shots)
        ]
        result[name] = photo_curve(first, labels, texts, SCALE, fitted=fitted), flags[0], flags[1]
    return result


def named(draws: Sequence[dict[str, Any]]) -> Iterator[tuple[int, bool, int]]:
    """Yield for each pair the named sign, whether the pair is clear, and the held-out sign."""
    for cells in draws:
        for first, second in itertools.combinations(cells.values(), 2):
            said = paired_difference(first[0].right[-1] > 0, second[0].right[-1] > 0)
            truth = paired_difference(first[1], second[1])
            sign = 0 if said.level else int(np.sign(said.share))
            yield sign, abs(truth.share) > truth.high - truth.low, int(np.sign(truth.share))


def tables(results: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    """Return both tables in Markdown."""
    lines, estimates = [], []
    for (name, shots), draws in results.items():
        pairs = [*named(draws)]
        wrong = sum(sign * truth < 0 for sign, _, truth in pairs)
        clear = [sign == truth for sign, is_clear, truth in pairs if is_clear]
        level = [sign == 0 for sign, is_clear, _ in pairs if not is_clear]
        lines.append((name, shots, len(pairs), wrong, f"{sum(clear)} of {len(clear)}", f"{sum(level)} of {len(level)}"))
        twice = [
            (curve.twice.accuracy, 100 * flags.mean())
            for cells in draws
            for curve, _, flags in cells.values()
            if flags is not None
        ]
        if twice:
            errors = np.array([100 * share.share - measured for share, measured in twice])
            inside = sum(100 * share.low <= measured <= 100 * share.high for share, measured in twice)
            width = np.mean([100 * (share.high - share.low) for share, _ in twice])
            cells = (f"{errors.mean():+.1f}", f"{np.abs(errors).mean():.1f}", f"{width:.0f}")
            estimates.append((name, f"{shots} to {2 * shots}", *cells, f"{inside} of {len(twice)}"))
    heads = ("set", "photos", "pairs", "named wrongly", "clear pairs named", "others called level")
    errors_of = ("set", "photos", "mean error", "mean absolute error", "width of the interval", "measured inside it")
    return f"{command.markdown(heads, lines)}\n\n{command.markdown(errors_of, estimates)}"


def seconds(paths: dict[str, Path]) -> str:
    """Return seconds of the command on 6 x 16 photos and three bundles, from nothing and with its cache."""
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(path.name for path in (command.ROOT / "examples" / "clothes" / "train").iterdir())[:6]:
            (Path(folder) / "photos" / name).parent.mkdir(exist_ok=True)
            (Path(folder) / "photos" / name).symlink_to(command.ROOT / "examples" / "clothes" / "train" / name)
        chosen = [str(paths[name]) for name in ENCODERS if name != "random"]
        words = ["compare", *chosen, "--photos", f"{folder}/photos", "--cache", f"{folder}/cache"]
        rows = []
        for call in ("from nothing", "second time"):
            began, before = time.perf_counter(), os.times()
            program = Path(sys.executable).with_name("sar-bundle")
            subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            processor = sum(after[2:4]) - sum(before[2:4])
            load = f"{os.getloadavg()[0]:.1f}"
            rows.append((call, f"{time.perf_counter() - began:.1f}", f"{processor:.1f}", load))
    return command.markdown(("call", "seconds", "processor seconds", "load"), rows)


def main() -> None:
    """Measure and write Markdown."""
    args = command.options(
        __doc__,
        data=command.SHARED_DATA,
        cache=Path(tempfile.gettempdir()) / "sar-compare",
        deal="reporting",
        sets=["all"],
        draws=10,
        seconds=(False, "time the command only"),
        out=(Path, "write Markdown here"),
    )
    if args.seconds:
        command.tell(seconds(bundles(args.data, args.cache)), out=args.out)
        return
    rows = encoded(args.data, args.cache)
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for name in SETS[args.deal] if args.sets == ["all"] else args.sets:
        keys = classes_of(rows["sar-mini"], name, args.deal)
        for shots in SHOTS:
            path = args.cache / f"{args.deal}-{name}-{shots}-{args.draws}.pickle"
            if not path.exists():  # of an earlier call
                path.write_bytes(pickle.dumps([draw(rows, keys, number, shots) for number in range(args.draws)]))
            results[name, shots] = pickle.loads(path.read_bytes())  # noqa: S301 - written here
            command.say(f"{name}, {shots} photos")
    command.tell(tables(results), out=args.out)


if __name__ == "__main__":
    main()
