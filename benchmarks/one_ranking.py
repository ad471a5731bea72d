"""Ranking with class statistics beside ranking by text alone: the ratio of their times, in one process, taking turns.

    python benchmarks/one_ranking.py [--trained 1000] [--names 1000000] [--dim 512] [--repeats 30]

Two banks: ``--trained`` classes that all have photos, and ``--names`` text rows of which 1,000 have photos. Rows are
random, seeded, of length 1. A query ranks as ``sar-classify`` does: the logits of all classes, a softmax, the best 5.
Times are the least of the repeats, and text and statistics take turns, so that a busy machine slows both. ``ready`` is
what the first class set of a bank takes, once for each bank.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.classifiers.composition import Composer
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import TrainedStatistics
from sar_infer.classify.class_set import ClassSet, build_class_set
from sar_infer.classify.ranking import Scale, rank

Floats = npt.NDArray[np.float32]
SCALE, TOP, PHOTOS = 100.0, 5, 50
ENCODER = "e" * 64


def main() -> None:
    """Print one line of JSON for each bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=int, default=1000)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    for count, repeats in ((given.trained, 10 * given.repeats), (given.names, given.repeats)):
        print(json.dumps(measured(count, given.trained, given.dim, repeats)), flush=True)


def measured(count: int, trained: int, dim: int, repeats: int) -> dict[str, object]:
    """Measure a bank of ``count`` classes, the first of which have photos."""
    names = [f"class {number}" for number in range(count)]
    bank = ClassBank(names, unit_rows(count, dim, 1), ENCODER)
    statistics = TrainedStatistics(tuple(names[:trained]), model(trained, dim), ENCODER)
    start = time.perf_counter()
    composed = class_set(bank, Composer(statistics, bank, SCALE))
    ready = time.perf_counter() - start
    ways = {"text": class_set(bank, None), "statistics": composed}
    result: dict[str, object] = {"classes": count, "with photos": trained, "ready_s": round(ready, 3)}
    for batch in (1, 16):
        rows = unit_rows(batch, dim, 2)
        times = taking_turns(ways, rows, repeats)
        milliseconds = {name: round(1000 * found / batch, 4) for name, found in times.items()}
        ratio = round(times["statistics"] / times["text"], 3)
        result[f"batch {batch}"] = {"ms per image": milliseconds, "ratio": ratio}
    return result


def taking_turns(ways: dict[str, ClassSet], rows: Floats, repeats: int) -> dict[str, float]:
    """Return the least seconds of each way."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, classes in ways.items():
            start = time.perf_counter()
            rank(rows, classes, Scale(SCALE), TOP)
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def class_set(bank: ClassBank, composer: Composer | None) -> ClassSet:
    """All classes of the bank and no others, which needs no encoder."""
    return build_class_set(bank, {}, False, _no_names, composer)


def _no_names(groups: Sequence[tuple[str, ...]]) -> Floats:
    raise AssertionError(f"nothing to encode, got {len(groups)} names")


def model(trained: int, dim: int) -> Statistics:
    """Statistics with a full precision matrix, as 50 photos of each class would give."""
    factor = np.random.default_rng(3).standard_normal((dim, dim)) / np.sqrt(dim)
    precision = factor @ factor.T + np.eye(dim)
    precision = ((precision + precision.T) / 2).astype(np.float32)
    centre, text_centre = 0.3 * unit_rows(2, dim, 4)
    means = 0.7 * unit_rows(trained, dim, 5)
    counts = np.full(trained, PHOTOS, dtype=np.int64)
    return Statistics(precision, centre, text_centre, 0.8, 0.5, 2.0, ((0, 0.0), (PHOTOS, 2.0)), (), means, counts)


def unit_rows(count: int, dim: int, seed: int) -> Floats:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main()
