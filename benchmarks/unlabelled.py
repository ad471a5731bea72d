"""Photos that nobody labelled: one ranking before and after learning from them, on real photos and ``sar-mini``.

    python -m benchmarks.unlabelled [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--halves 2]
        [--sets clothes caltech101 dtd pacs] [--out FILE.md]

Sets, draws and training are those of ``benchmarks.class_statistics``. Half of the test photos are the stream, the
other half is evaluated, both ways, several times. Streams: all classes; a quarter of them; trained classes alone; added
classes alone; skewed, the rank r of C classes kept with probability (1 + 6 r / C)^-1.5; twenty photos; as many
strangers as photos, from the other sets. Added classes are known by name, or by 1, 2 or 4 photos. Numbers are the
harmonic mean of accuracy on trained and added classes: before, after ``learn``, after ``learn --all-known``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_statistics import PHOTOS, Domain, Photos, Scores, domains, encoded, set_options, trained

STREAMS = ("all", "quarter", "trained", "added", "skewed", "twenty", "strangers")
_STRANGERS = 200
_TWENTY = 20


def stream(test: Photos, half: Any, kind: str, trained_count: int, strangers: Any, rng: Any) -> Any:
    """Return the rows (N, D) of a stream, drawn from half of the test photos and from strangers."""
    labels, classes = test.labels[half], int(test.labels.max()) + 1
    if kind == "quarter":
        half = half[np.isin(labels, rng.permutation(classes)[: -(-classes // 4)])]
    elif kind in ("trained", "added"):
        half = half[(labels < trained_count) == (kind == "trained")]
    elif kind == "skewed":
        chance = (1 + 6 * rng.permutation(classes) / classes) ** -1.5
        half = half[rng.random(len(half)) < chance[labels]]
    elif kind == "twenty":
        half = rng.permutation(half)[:_TWENTY]
    rows = test.rows[half]
    return np.concatenate([rows, rng.permutation(strangers)[: len(half)]]) if kind == "strangers" else rows


def other_sets(args: argparse.Namespace, name: str) -> Any:
    """Return rows of photos of the other sets, which are strangers to a set."""
    from sar_train.data.feature_file import DEMO_FILE, load_features

    rng = np.random.default_rng(0)
    rows = []
    for key, folder in (("garments", "clothes/test"), ("DTD", "dtd/images"), ("PACS", "pacs/photo")):
        if not name.startswith(key):
            photos, _ = encoded(args.data / folder, args.backbone, args.cache)
            rows.append(photos.rows[rng.permutation(len(photos.rows))[:_STRANGERS]])
    if not name.startswith("Caltech"):
        demo = load_features(DEMO_FILE).plain("test").numpy()
        rows.append(demo[rng.permutation(len(demo))[:_STRANGERS]])
    return np.concatenate(rows)


def measured(
    domain: Domain, test: Photos, run_folder: Path, args: argparse.Namespace, seed: int
) -> Iterator[tuple[str, int, list[float]]]:
    """Yield stream, photos of each added class, and the three harmonic means, for each half of the test photos."""
    from sar_infer.classifiers.learning import KnownClasses, learn
    from sar_infer.classifiers.statistics import composed
    from sar_train.training.checkpoint import load_statistics

    fitted = load_statistics(run_folder)
    if fitted is None:
        raise SystemExit(f"{run_folder}: no statistics")
    statistics, count, scale = fitted.statistics, domain.trained, args.backbone.logit_scale
    rows = args.backbone.embed_names(domain.names, domain.template).numpy()
    pool = [np.flatnonzero(domain.train.labels == c) for c in range(count, len(domain.names))]
    strangers = other_sets(args, domain.name)
    order = np.random.default_rng(seed)

    def harmonic(bank: KnownClasses, learning: Any, half: Any) -> float:
        counts, translation, means = bank.counts, np.zeros(rows.shape[1]), bank.means
        if learning is not None:
            counts, translation = bank.counts + learning.counts, learning.translation
            moved = learning.sums + learning.counts[:, None] * translation
            means = (bank.counts[:, None] * bank.means + moved) / np.maximum(counts, 1e-12)[:, None]
        weights, bias = composed(statistics, scale, rows, means.astype(np.float32), counts)
        logits = (test.rows[half] + translation - statistics.centre) @ weights.T + bias
        scores = Scores.of(logits.argmax(1) == test.labels[half], test.labels[half], count)
        return 2 * scores.trained * scores.added / max(scores.trained + scores.added, 1e-9)

    for _ in range(args.halves):
        halves = np.array_split(order.permutation(len(test.labels)), 2)
        for learned, evaluated in (halves, halves[::-1]):
            for photos in PHOTOS:
                shown = [domain.train.rows[order.permutation(p)[: max(photos, 1)]].mean(0) for p in pool]
                means = np.concatenate([statistics.means, shown]).astype(np.float32)
                numbers = np.array([*statistics.counts, *[photos] * len(pool)], np.float64)
                bank = KnownClasses(rows, means, numbers, np.zeros(len(rows), np.bool_))
                before = harmonic(bank, None, evaluated)
                for kind in STREAMS:
                    photos_seen = stream(test, learned, kind, count, strangers, order)
                    after = [
                        harmonic(bank, learn(statistics, scale, bank, photos_seen, all_known=plain), evaluated)
                        for plain in (False, True)
                    ]
                    yield kind, photos, [before, *after]


def page(means: Mapping[tuple[str, str, int], Any]) -> str:
    """Return the tables: before, after, after with --all-known, by set, stream and photos."""
    names = list(dict.fromkeys(name for name, _, _ in means))
    lines = []
    for photos in PHOTOS:
        table = [
            (
                name,
                f"{means[name, STREAMS[0], photos][0]:.1f}",
                *(" / ".join(f"{value:.1f}" for value in means[name, kind, photos][1:]) for kind in STREAMS),
            )
            for name in names
        ]
        title = f"{photos} photos of each added class" if photos else "Added classes by name"
        lines += [f"{title}: learn / learn --all-known", command.markdown(("set", "before", *STREAMS), table)]
    gains = [
        (kind, *(f"{np.mean([v[i] - v[0] for (_, k, _), v in means.items() if k == kind]):+.1f}" for i in (1, 2)))
        for kind in STREAMS
    ]
    lines += ["Mean change over sets and numbers of photos", command.markdown(("stream", "learn", "all known"), gains)]
    losses = sorted((v[1] - v[0], *key) for key, v in means.items())[:5]
    rows = [(name, kind, photos, f"{change:+.1f}") for change, name, kind, photos in losses]
    lines += ["Largest losses of `learn`", command.markdown(("set", "stream", "photos", "change"), rows)]
    return "\n\n".join(["One ranking, harmonic mean of trained and added classes in per cent", *lines])


def main() -> None:
    """Measure, print and write."""
    args = set_options(__doc__, halves=2, shots=16)
    from sar_train.clip import backbone

    args.backbone, args.epochs, args.sar = backbone.load("sar-mini"), None, None
    collected: dict[tuple[str, str, int], list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for domain in domains(args, args.backbone, seed):
                out = Path(folder) / f"{domain.name}-{seed}".replace(" ", "_")
                trained(domain, "handcrafted", args, seed, args.shots, out)
                for label, test in domain.tests.items():
                    for kind, photos, values in measured(domain, test, out / "run", args, seed):
                        collected[f"{domain.name}{label}", kind, photos].append(values)
                    command.say(f"{domain.name}{label}, seed {seed}")
                means = {key: np.mean(values, axis=0) for key, values in collected.items()}
                if args.out:
                    command.save(page(means), None, args.out)
    command.tell(page(means))


if __name__ == "__main__":
    main()
