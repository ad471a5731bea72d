"""One ranking over trained classes and classes added later, with class statistics, on real photos and ``sar-mini``.

    python benchmarks/class_statistics.py [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--shots 16]
        [--methods handcrafted coop coop+sar] [--sets clothes caltech101 dtd pacs] [--epochs N] [--out FILE.md]

Each set is trained by ``sar-train`` on features of some of its classes; nothing of the others takes part. They are then
added by name, and by 1, 2 and 4 photos each (mean of ten draws). ``chosen`` is what the run chose by leaving trained
classes out in turn, ``hindsight`` the best mean of both accuracies that any of its values of alpha reaches with any
offset on the test photos themselves, which no run may know. ``text`` is the same prompt without statistics.
Caltech101's features ship with the package; the other sets need ``--data`` and are encoded once into ``--cache``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

GARMENTS = ("dress", "hat", "jacket", "long-sleeved shirt", "shirt", "trousers")
PHOTOS = (0, 1, 2, 4)
DRAWS = 10
ALONE = (1, 2, 4, 8, 16)
SETS = ("clothes", "caltech101", "dtd", "pacs")


@dataclass(frozen=True)
class Photos:
    """Unit features (N, D) with labels (N,)."""

    rows: Any
    labels: Any

    def of(self, classes: Any) -> Photos:
        """Return those of some classes, labelled by their places among them."""
        place = {int(label): i for i, label in enumerate(classes)}
        kept = [i for i, label in enumerate(self.labels.tolist()) if label in place]
        return Photos(self.rows[kept], np.array([place[int(label)] for label in self.labels[kept]]))


@dataclass(frozen=True)
class Domain:
    """A set to train on, and the photos to evaluate on, all labelled by the places of ``names``, trained ones first."""

    name: str
    names: tuple[str, ...]
    trained: int
    template: str
    train: Photos
    tests: dict[str, Photos]


def encoded(folder: Path, backbone: Any, cache: Path) -> tuple[Photos, tuple[str, ...]]:
    """Encode a folder of photos by class, or read its features from the cache."""
    from sar_train.data.dataset import DataOptions
    from sar_train.data.open_features import open_features

    features = open_features(str(folder), backbone, DataOptions(shots=0, cache_dir=cache, tell=print, target=True))
    return Photos(features.plain("test").numpy(), features.labels("test").numpy()), features.dataset.class_names


def split(photos: Photos, shots: int, seed: int) -> tuple[Photos, Photos]:
    """Return the first ``shots`` photos of each class in a random order, and the rest."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(photos.labels == c)) for c in np.unique(photos.labels)]
    parts = [np.concatenate(part) for part in ([o[:shots] for o in orders], [o[shots:] for o in orders])]
    first, rest = (Photos(photos.rows[part], photos.labels[part]) for part in parts)
    return first, rest


def domains(args: argparse.Namespace, backbone: Any, seed: int) -> Iterator[Domain]:
    """Yield the sets, drawn by a seed; the garments have one draw, all 16 photos."""
    from sar_train.data.feature_file import DEMO_FILE, load_features

    plain = "a photo of a {}."
    if "clothes" in args.sets and (seed == args.seeds[0] or args.shots < 16):
        train, names = encoded(args.data / "clothes" / "train", backbone, args.cache)
        test, _ = encoded(args.data / "clothes" / "test", backbone, args.cache)
        order = sorted(range(len(names)), key=lambda c: names[c] not in GARMENTS)
        yield Domain(
            "garments", tuple(names[c] for c in order), len(GARMENTS), plain, train.of(order), {"": test.of(order)}
        )
    if "caltech101" in args.sets:
        demo = load_features(DEMO_FILE)
        train, test = (Photos(demo.plain(s).numpy(), demo.labels(s).numpy()) for s in ("train", "test"))
        yield Domain("Caltech101", demo.dataset.class_names, 50, demo.dataset.template, train, {"": test})
    rng = np.random.default_rng(seed)
    if "dtd" in args.sets:
        photos, names = encoded(args.data / "dtd" / "images", backbone, args.cache)
        order = rng.permutation(len(names)).tolist()
        train, test = split(photos.of(order), 40, seed)
        yield Domain("DTD, 6 + 4", tuple(names[c] for c in order), 6, "{} texture.", train, {"": test})
    if "pacs" in args.sets:
        photos, names = encoded(args.data / "pacs" / "photo", backbone, args.cache)
        order = rng.permutation(len(names)).tolist()
        train, test = split(photos.of(order), 30, seed)
        tests = {"": test}
        for domain in ("cartoon", "sketch"):
            other, _ = encoded(args.data / "pacs" / domain, backbone, args.cache)
            tests[f" to {domain}"] = other.of(order)
        yield Domain("PACS photos, 4 + 3", tuple(names[c] for c in order), 4, plain, train, tests)


def trained(domain: Domain, method: str, args: argparse.Namespace, seed: int, shots: int, out: Path) -> Any:
    """Train a run on the trained classes of a set."""
    import torch

    from sar_train.config.run import RunConfig
    from sar_train.data.dataset import Dataset
    from sar_train.data.feature_file import StoredFeatures, labelled, save_features
    from sar_train.training import trainer

    train, test = (photos.of(range(domain.trained)) for photos in (domain.train, domain.tests[""]))
    out.mkdir(parents=True, exist_ok=True)
    backbone = args.backbone
    labels = {"train": torch.from_numpy(train.labels), "test": torch.from_numpy(test.labels)}
    features = StoredFeatures(
        Dataset(domain.name, domain.names[: domain.trained], splits=labelled(labels), template=domain.template),
        backbone.name,
        backbone.weights_digest,
        backbone.preprocess,
        {"train": torch.from_numpy(train.rows), "test": torch.from_numpy(test.rows)},
    )
    save_features(features, out / "features.safetensors")
    learned = method != "handcrafted"
    config = RunConfig(
        str(out / "features.safetensors"),
        method="coop",
        sar=method.endswith("+sar"),
        shots=shots,
        seed=seed,
        protocol="all",
        epochs=args.epochs if learned else 1,
        prompt="auto" if learned else "handcrafted",
        sections={"sar": args.sar} if method.endswith("+sar") and args.sar else {},
    )
    return trainer.run(config, out / "run")


@dataclass(frozen=True)
class Scores:
    """Accuracy in per cent on trained and added classes, over photos (first two) and as means over classes."""

    trained: float
    added: float
    trained_classes: float
    added_classes: float

    @property
    def mean(self) -> float:
        """Return the criterion that runs choose by."""
        return (self.trained_classes + self.added_classes) / 2

    def __str__(self) -> str:
        both = 2 * self.trained * self.added / max(self.trained + self.added, 1e-9)
        return f"{self.trained:.1f} / {self.added:.1f} ({both:.1f})"

    @classmethod
    def of(cls, right: Any, labels: Any, known: int) -> Scores:
        """Score (N,) flags of right answers."""
        sides = (labels < known, labels >= known)
        photos = [100 * float(right[side].mean()) for side in sides]
        classes = [100 * float(np.mean([right[labels == c].mean() for c in np.unique(labels[s])])) for s in sides]
        return cls(*photos, *classes)


def averaged(found: list[Scores]) -> Scores:
    """Return the mean of several."""
    return Scores(*np.mean([dataclasses.astuple(one) for one in found], axis=0).tolist())


def rankings(domain: Domain, test: Photos, run_folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of one ranking by number of photos: without statistics, as chosen, and in hindsight."""
    from sar_infer.classifiers.statistics import composed
    from sar_train.training.checkpoint import load_run
    from sar_train.training.prompted import restore
    from sar_train.training.statistics.left_out import ALPHAS
    from sar_train.training.statistics.run_file import LEARNED, load_statistics

    fitted, backbone = load_statistics(run_folder), args.backbone
    if fitted is None:
        raise SystemExit(f"{run_folder}: no statistics")
    statistics, known = fitted.statistics, domain.trained
    run = load_run(run_folder)
    handcrafted = backbone.embed_names(domain.names, domain.template).numpy()
    own = restore(run, backbone).embed(domain.names).numpy() if fitted.prompt == LEARNED else handcrafted
    pool = [np.flatnonzero(domain.train.labels == c) for c in range(known, len(domain.names))]

    def logits(alpha: float, photos: int, draw: int) -> Any:
        rng = np.random.default_rng(draw)
        shown = [domain.train.rows[rng.permutation(rows)[: max(photos, 1)]].mean(0) for rows in pool]
        model = dataclasses.replace(statistics, alpha=alpha, offsets=((0, 0.0),))
        means, counts = np.concatenate([statistics.means, shown]), [*statistics.counts, *[photos] * len(pool)]
        weights, bias = composed(model, backbone.logit_scale, own, means, counts)
        return (test.rows - statistics.centre) @ weights.T + bias, statistics.offset(counts)

    found: dict[str, Any] = {"text": Scores.of((test.rows @ own.T).argmax(1) == test.labels, test.labels, known)}
    found["text, hand-crafted"] = Scores.of((test.rows @ handcrafted.T).argmax(1) == test.labels, test.labels, known)
    shifts = np.linspace(-2, 4, 61) * backbone.logit_scale
    for photos in PHOTOS:
        draws = range(DRAWS if photos else 1)
        values = [logits(statistics.alpha, photos, draw) for draw in draws]
        chosen = [Scores.of((scores - g).argmax(1) == test.labels, test.labels, known) for scores, g in values]
        candidates = []
        for alpha in ALPHAS:
            curves = [swept(logits(alpha, photos, draw)[0], test.labels, known, shifts) for draw in draws]
            candidates += [(averaged(list(scores)), alpha) for scores in zip(*curves, strict=True)]
        best = max(candidates, key=lambda pair: pair[0].mean)
        found[str(photos)] = averaged(chosen), *best
    return found


def swept(logits: Any, labels: Any, known: int, shifts: Any) -> list[Scores]:
    """Score the rankings in which all trained classes lose each of ``shifts``."""
    ours, theirs = logits[:, :known], logits[:, known:]
    margin = ours.max(1) - theirs.max(1)
    right = np.where(labels < known, ours.argmax(1), theirs.argmax(1) + known) == labels
    return [Scores.of(right & ((margin >= shift) == (labels < known)), labels, known) for shift in shifts]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sar-class-statistics")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=["handcrafted"], choices=["handcrafted", "coop", "coop+sar"])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--epochs", type=int, help="Of learned prompts.  [default: the method's]")
    parser.add_argument("--sar-weight", type=float, help="Of SAR, for coop+sar.")
    parser.add_argument("--sar-distance", help="Of SAR, for coop+sar.")
    parser.add_argument("--alone", type=int, nargs="*", default=list(ALONE), help="Shots of the trained classes alone.")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    given = {"weight": args.sar_weight, "distance": args.sar_distance}
    args.sar = {name: value for name, value in given.items() if value is not None}
    return args


@dataclass
class Report:
    """Lines of Markdown, printed and written as they come."""

    path: Path | None
    lines: list[str]

    def __call__(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines
        print(*lines, sep="\n", flush=True)
        if self.path:
            self.path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def one_run(
    domain: Domain, method: str, seed: int, args: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, ...]]:
    """Yield a row of the first table, and after it the rows of the second, for each test set of a trained run."""
    out = folder / f"{domain.name}-{method}-{seed}".replace(" ", "_")
    record = trained(domain, method, args, seed, args.shots, out).record
    entry, fit = record["statistics"], record["timing"]["statistics_seconds"]
    own = record["other_metrics"]["statistics"]["base_accuracy"]
    prompt = method if entry["prompt"] == "learned" else "hand-crafted"
    shown = method if method in (prompt, "handcrafted") else f"{method}, which chose {prompt}"
    for label, test in domain.tests.items():
        found = rankings(domain, test, out / "run", args)
        cells = " | ".join(str(found[str(photos)][0]) for photos in PHOTOS)
        head = f"| {domain.name}{label} | {shown} | {seed} |"
        first = f"{head} {entry['alpha']} | {found['text']} | {cells} | {own:.1f} | {fit:.1f} |"
        rest = []
        for photos in PHOTOS:
            chosen, best, alpha = found[str(photos)]
            rest.append(
                f"{head} {photos} | {chosen.mean:.1f} | {best.mean:.1f} (alpha {alpha}) | "
                f"{best.mean - chosen.mean:.1f} | {found['text'].mean:.1f} |"
            )
        yield (first, *rest)


def main() -> None:
    """Measure, print and write."""
    args = arguments()
    from sar_train.clip import backbone

    args.backbone = backbone.load("sar-mini")
    show, second = Report(args.out, []), []
    alone: dict[tuple[str, int], list[list[float]]] = {}
    show(
        f"One ranking, trained / added (H) in per cent over photos, {args.shots} shots, {DRAWS} draws of added photos",
        "",
        "| set | prompt | seed | alpha | text | by name | 1 photo | 2 photos | 4 photos | trained alone | fit, s |",
        "|" + "---|" * 11,
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for domain in domains(args, args.backbone, seed):
                for method in args.methods:
                    for first, *rest in one_run(domain, method, seed, args, Path(folder)):
                        show(first)
                        second += rest
                for shots in (number for number in args.alone if number <= args.shots):
                    out = Path(folder) / f"{domain.name}-alone-{shots}-{seed}".replace(" ", "_")
                    done = Path(folder) / f"{domain.name}-handcrafted-{seed}".replace(" ", "_") / "run" / "record.json"
                    if shots == args.shots and done.exists():
                        record = json.loads(done.read_text(encoding="utf-8"))
                    else:
                        record = trained(domain, "handcrafted", args, seed, shots, out).record
                    ways = (record["zero_shot"], record["linear_probe"], record["other_metrics"]["statistics"])
                    alone.setdefault((domain.name, shots), []).append([way["base_accuracy"] for way in ways])
    show(
        "",
        "Chosen without any added class, against the best in hindsight: mean of both accuracies per class",
        "",
        "| set | prompt | seed | photos | chosen | hindsight | lost | text |",
        "|" + "---|" * 8,
        *second,
        "",
        "Trained classes alone, hand-crafted prompt, mean over seeds",
        "",
        "| set | shots | zero-shot | linear probe | with statistics |",
        "|" + "---|" * 5,
    )
    for (name, shots), values in alone.items():
        show(f"| {name} | {shots} | " + " | ".join(f"{value:.1f}" for value in np.mean(values, axis=0)) + " |")


if __name__ == "__main__":
    main()
