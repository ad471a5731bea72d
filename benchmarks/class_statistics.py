"""One ranking over trained classes and classes added later, with class statistics, on real photos and ``sar-mini``.

    python -m benchmarks.class_statistics [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--shots 16]
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
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

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
        positions = {int(label): i for i, label in enumerate(classes)}
        rows = [i for i, label in enumerate(self.labels.tolist()) if label in positions]
        return Photos(self.rows[rows], np.array([positions[int(label)] for label in self.labels[rows]]))


@dataclass(frozen=True)
class Domain:
    """A set to train on, and the photos to evaluate on, all labelled by the places of ``names``, trained ones first."""

    name: str
    names: tuple[str, ...]
    trained: int
    template: str
    train: Photos
    tests: dict[str, Photos]


def set_options(description: str | None, /, **more: Any) -> argparse.Namespace:
    """Read the command line of a measurement on these sets.

    Args:
        description: a module's docstring.
        more: its own options, as `command.options` takes them.
    """
    return command.options(
        description,
        **{
            "data": command.SHARED_DATA,
            "cache": Path(tempfile.gettempdir()) / "sar-class-statistics",
            "seeds": [1, 2, 3],
            "sets": list(SETS),
            "out": (Path, "write the tables here"),
            **more,
        },
    )


def encoded(folder: Path, backbone: Any, cache: Path) -> tuple[Photos, tuple[str, ...]]:
    """Encode a folder of photos by class, or read its features from the cache."""
    from sar_train.data.dataset import DataOptions
    from sar_train.data.opening import open_features

    features = open_features(str(folder), backbone, DataOptions(shots=0, cache_dir=cache, tell=print, target=True))
    return Photos(features.plain("test").numpy(), features.labels("test").numpy()), features.dataset.class_names


def split(photos: Photos, shots: int, seed: int) -> tuple[Photos, Photos]:
    """Return the first ``shots`` photos of each class in a random order, and the rest."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(photos.labels == c)) for c in np.unique(photos.labels)]
    first, rest = (np.concatenate(rows) for rows in ([o[:shots] for o in orders], [o[shots:] for o in orders]))
    return Photos(photos.rows[first], photos.labels[first]), Photos(photos.rows[rest], photos.labels[rest])


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
    from torch import Tensor

    from sar_train.config.run import RunConfig
    from sar_train.data.dataset import Dataset, Split
    from sar_train.data.feature_file import StoredFeatures, labelled, save_features
    from sar_train.training import trainer

    train, test = (photos.of(range(domain.trained)) for photos in (domain.train, domain.tests[""]))
    out.mkdir(parents=True, exist_ok=True)
    backbone = args.backbone
    labels: dict[Split, Tensor] = {"train": torch.from_numpy(train.labels), "test": torch.from_numpy(test.labels)}
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
    def of(cls, right: Any, labels: Any, trained: int) -> Scores:
        """Score (N,) flags of right answers."""
        sides = (labels < trained, labels >= trained)
        photos = [100 * float(right[side].mean()) for side in sides]
        classes = [100 * float(np.mean([right[labels == c].mean() for c in np.unique(labels[s])])) for s in sides]
        return cls(*photos, *classes)


def averaged(scores: list[Scores]) -> Scores:
    """Return the mean of several."""
    return Scores(*np.mean([dataclasses.astuple(one) for one in scores], axis=0).tolist())


def rankings(domain: Domain, test: Photos, run_folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of one ranking by number of photos: without statistics, as chosen, and in hindsight."""
    from sar_infer.classifiers.left_out import ALPHAS, LEARNED
    from sar_infer.classifiers.statistics import composed
    from sar_train.training.checkpoint import load_run, load_statistics
    from sar_train.training.prompted import restore

    fitted, backbone = load_statistics(run_folder), args.backbone
    if fitted is None:
        raise SystemExit(f"{run_folder}: no statistics")
    statistics, trained_count = fitted.statistics, domain.trained
    run = load_run(run_folder)
    handcrafted = backbone.embed_names(domain.names, domain.template).numpy()
    learned = restore(run, backbone).embed(domain.names).numpy() if fitted.prompt == LEARNED else handcrafted
    pool = [np.flatnonzero(domain.train.labels == c) for c in range(trained_count, len(domain.names))]

    def logits(alpha: float, photos: int, draw: int) -> Any:
        rng = np.random.default_rng(draw)
        shown = [domain.train.rows[rng.permutation(rows)[: max(photos, 1)]].mean(0) for rows in pool]
        model = dataclasses.replace(statistics, alpha=alpha, offsets=((0, 0.0),))
        means, counts = np.concatenate([statistics.means, shown]), [*statistics.counts, *[photos] * len(pool)]
        weights, bias = composed(model, backbone.logit_scale, learned, means, counts)
        return (test.rows - statistics.centre) @ weights.T + bias, statistics.offset(counts)

    results: dict[str, Any] = {
        "text": Scores.of((test.rows @ learned.T).argmax(1) == test.labels, test.labels, trained_count)
    }
    results["text, hand-crafted"] = Scores.of(
        (test.rows @ handcrafted.T).argmax(1) == test.labels, test.labels, trained_count
    )
    shifts = np.linspace(-2, 4, 61) * backbone.logit_scale
    for photos in PHOTOS:
        draws = range(DRAWS if photos else 1)
        values = [logits(statistics.alpha, photos, draw) for draw in draws]
        chosen = [Scores.of((scores - g).argmax(1) == test.labels, test.labels, trained_count) for scores, g in values]
        candidates = []
        for alpha in ALPHAS:
            curves = [swept(logits(alpha, photos, draw)[0], test.labels, trained_count, shifts) for draw in draws]
            candidates += [(averaged(list(scores)), alpha) for scores in zip(*curves, strict=True)]
        best = max(candidates, key=lambda pair: pair[0].mean)
        results[str(photos)] = averaged(chosen), *best
    return results


def swept(logits: Any, labels: Any, trained: int, shifts: Any) -> list[Scores]:
    """Score the rankings in which all trained classes lose each of ``shifts``."""
    ours, theirs = logits[:, :trained], logits[:, trained:]
    margin = ours.max(1) - theirs.max(1)
    right = np.where(labels < trained, ours.argmax(1), theirs.argmax(1) + trained) == labels
    return [Scores.of(right & ((margin >= shift) == (labels < trained)), labels, trained) for shift in shifts]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    args = set_options(
        __doc__,
        shots=16,
        methods=(["handcrafted"], "of handcrafted, coop and coop+sar"),
        epochs=(int, "of learned prompts; the method's if not options"),
        sar_weight=(float, "of SAR, for coop+sar"),
        sar_distance=(str, "of SAR, for coop+sar"),
        alone=(list(ALONE), "shots of the trained classes alone"),
    )
    settings = {"weight": args.sar_weight, "distance": args.sar_distance}
    args.sar = {name: value for name, value in settings.items() if value is not None}
    return args


Cells = tuple[object, ...]


def one_run(domain: Domain, method: str, seed: int, args: argparse.Namespace, folder: Path) -> Iterator[list[Cells]]:
    """Yield a row of the first table, and after it the rows of the second, for each test set of a trained run."""
    out = folder / f"{domain.name}-{method}-{seed}".replace(" ", "_")
    record = trained(domain, method, args, seed, args.shots, out).record
    entry, fit = record["statistics"], record["timing"]["statistics_seconds"]
    alone = record["other_metrics"]["statistics"]["base_accuracy"]
    prompt = method if entry["prompt"] == "learned" else "hand-crafted"
    shown = method if method in (prompt, "handcrafted") else f"{method}, which chose {prompt}"
    for label, test in domain.tests.items():
        scores = rankings(domain, test, out / "run", args)
        head = (f"{domain.name}{label}", shown, seed)
        chosen = (str(scores[str(photos)][0]) for photos in PHOTOS)
        rows: list[Cells] = [(*head, entry["alpha"], scores["text"], *chosen, f"{alone:.1f}", f"{fit:.1f}")]
        for photos in PHOTOS:
            chosen_scores, best, alpha = scores[str(photos)]
            lost = f"{best.mean:.1f} (alpha {alpha})", f"{best.mean - chosen_scores.mean:.1f}"
            rows.append((*head, photos, f"{chosen_scores.mean:.1f}", *lost, f"{scores['text'].mean:.1f}"))
        yield rows


def page(args: argparse.Namespace, first: list[Cells], second: list[Cells], alone: dict[Any, list[list[float]]]) -> str:
    """Return the three tables."""
    heads = ("set", "prompt", "seed", "alpha", "text", "by name", "1 photo", "2 photos", "4 photos", "trained alone")
    third = [(name, shots, *(f"{v:.1f}" for v in np.mean(values, axis=0))) for (name, shots), values in alone.items()]
    title = f"{args.shots} shots, {DRAWS} draws of added photos"
    return "\n\n".join(
        [
            f"One ranking, trained / added (H) in per cent over photos, {title}",
            command.markdown((*heads, "fit, s"), first),
            "Chosen without any added class, against the best in hindsight: mean of both accuracies per class",
            command.markdown(("set", "prompt", "seed", "photos", "chosen", "hindsight", "lost", "text"), second),
            "Trained classes alone, hand-crafted prompt, mean over seeds",
            command.markdown(("set", "shots", "zero-shot", "linear probe", "with statistics"), third),
        ]
    )


def main() -> None:
    """Measure, print and write."""
    args = arguments()
    from sar_train.clip import backbone

    args.backbone = backbone.load("sar-mini")
    first: list[Cells] = []
    second: list[Cells] = []
    alone: dict[tuple[str, int], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for domain in domains(args, args.backbone, seed):
                for method in args.methods:
                    for row, *rest in one_run(domain, method, seed, args, Path(folder)):
                        command.say(" | ".join(map(str, row)))
                        first.append(row)
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
                if args.out:
                    command.save(page(args, first, second, alone), None, args.out)
    command.tell(page(args, first, second, alone))


if __name__ == "__main__":
    main()
