"""Print the ruler: each SAR against no SAR on the same photos, classes and seed, over splits and seeds.

    python experiments/ruler/table.py [experiments/results/ruler]

H is the harmonic mean of the usual protocol, open H that of one ranking; differences are means over the pairs of runs,
with half the width of a 95 % interval by Student's t where there are three or more.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

from sar_train.report.results import loose_files, packed_runs

Pair = tuple[str, str, int]


def measures(result: dict[str, Any]) -> tuple[float, ...]:
    """Return base, new, H, open base, open new and open H in percent."""
    keys = ("base_accuracy", "new_accuracy", "harmonic_mean")
    rankings = result["metrics"], result["open"]["metrics"]["images"]
    return tuple(ranking[key] for ranking in rankings for key in keys)


def read(folder: Path) -> dict[str, dict[Pair, tuple[float, ...]]]:
    """Return the measures by run name and by (data, deal, seed)."""
    runs: dict[str, dict[Pair, tuple[float, ...]]] = defaultdict(dict)
    packed = {path: run.result for path, run in packed_runs(folder)}
    loose = {path: json.loads(path.read_text(encoding="utf-8")) for path in loose_files(folder)}
    for _, result in sorted((packed | loose).items()):
        config = result["config"]
        runs[result["name"]][Path(config["data"]).stem, config["base_classes"], result["seed"]] = measures(result)
    return runs


def interval(values: list[float]) -> str:
    """Return a mean with half the width of its 95 % interval, such as ``+1.2 ± 0.8``."""
    text = f"{mean(values):+.1f}"
    if len(values) > 2:
        text += f" ± {t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values)):.1f}"
    return text


def rows(runs: dict[str, dict[Pair, tuple[float, ...]]], data: str) -> list[list[str]]:
    """Return a row of cells for each run on one data set, the best H + open H first.

    ``ProGrad, squared 1`` is compared with ``ProGrad, no SAR``, and a name without a method with ``no SAR``.
    """
    ranked = []
    for name, of_pair in list(runs.items()):
        plain = "".join(name.rpartition(", ")[:2]) + "no SAR"
        pairs = [pair for pair in of_pair if pair[0] == data and pair in runs[plain]]
        if pairs:
            means = [mean(of_pair[pair][k] for pair in pairs) for k in range(6)]
            gains = [[of_pair[pair][k] - runs[plain][pair][k] for pair in pairs] for k in (2, 5)]
            cells = [
                f"{means[0]:.1f} / {means[1]:.1f} ({means[2]:.1f})",
                f"{means[3]:.1f} / {means[4]:.1f} ({means[5]:.1f})",
            ]
            cells += ["" if name == plain else interval(gain) for gain in gains]
            ranked.append((sum(map(mean, gains)), [name, str(len(pairs)), *cells]))
    return [cells for _, cells in sorted(ranked, key=lambda row: -row[0])]


def main() -> None:
    """Print a Markdown table for each data set."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "experiments/results/ruler")
    runs = read(folder)
    for data in sorted({pair[0] for of_pair in runs.values() for pair in of_pair}):
        print(
            f"\n**{data}**\n\n| SAR | runs | base / new (H) | in one ranking | H | open H |\n|---|---|---|---|---|---|"
        )
        for cells in rows(runs, data):
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
