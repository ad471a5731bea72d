"""Print the ruler: each SAR against other runs on the same photos, classes and seed, over splits and seeds.

    python experiments/ruler/table.py [experiments/results/ruler …]
    python experiments/ruler/table.py --against "CoOp, SAR" experiments/results/ruler_default

Switched, trained classes have the learned prompt and all others the hand-crafted one. Joint H is over both kinds of
classes together, the class model's too. Differences are means over the pairs of runs, with half the width of a 95 %
interval by Student's t where there are three or more. *Above the better*: the better of plain and switched with SAR,
minus the better of plain and switched without, each by its mean. *Against* a run: joint H under the class model of the
learned prompt, minus that run's, on each set and on the mean of the sets.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.results import loose_files, packed_runs
from sar_train.report.scores import half_width

Pair = tuple[str, str, int]
Runs = dict[str, dict[Pair, dict[str, float]]]
FOLDERS = ("experiments/results/ruler", "experiments/results/ruler_frame", "experiments/results/ruler_step")
SAME = {"squared 10": "teacher 10", "squared 30": "teacher 30"}
"""Names of the same settings in the two plans."""
JOINT = {
    "joint H": "metrics",
    "switched joint H": "switched",
    "class model": "statistics",
    "class model, switched": "statistics-switched",
    "class model, hand-crafted": "statistics-handcrafted",
}
COLUMNS = ("H", "switched H", *JOINT)
WAYS = {
    "H": ("H", "switched H"),
    "joint H": ("joint H", "switched joint H"),
    "class model": ("class model", "class model, switched"),
}
"""Each measure plain and switched."""
RIVALS = {
    "no SAR": ("H", "joint H", "class model"),
    "teacher 10": ("H", "joint H", "class model"),
}


def measures(result: dict[str, Any]) -> dict[str, float]:
    """Return base and new accuracy, and `COLUMNS` as far as they were measured, in percent."""
    base, new = result["metrics"]["base_accuracy"], result["metrics"]["new_accuracy"]
    values = {"base": base, "new": new, "H": result["metrics"]["harmonic_mean"]}
    values["switched H"] = harmonic_mean(base, result["zero_shot"]["new_accuracy"]) or 0.0
    jointly = result["open"]["metrics"]["images"]
    values |= {"joint base": jointly["base_accuracy"], "joint new": jointly["new_accuracy"]}
    ways = {"metrics": result["open"]["metrics"]} | result["open"]["other_metrics"]
    if "statistics-switched" not in ways:  # the class model before the present one
        ways.pop("statistics", None)
    return values | {name: ways[way]["images"]["harmonic_mean"] for name, way in JOINT.items() if way in ways}


def read(folders: list[Path]) -> Runs:
    """Return the measures by run name and by (data, deal, seed); of a run in several folders the last counts."""
    runs: Runs = defaultdict(dict)
    for folder in folders:
        packed = {path: run.result for path, run in packed_runs(folder)}
        loose = {path: json.loads(path.read_text(encoding="utf-8")) for path in loose_files(folder)}
        for _, result in sorted((packed | loose).items()):
            config, name = result["config"], result["name"]
            pair = Path(config["data"]).stem, config["base_classes"], result["seed"]
            runs[SAME.get(name, name)][pair] = measures(result)
    return runs


def interval(values: list[float]) -> str:
    """Return a mean with half the width of its 95 % interval, such as ``+1.2 ± 0.8``."""
    text = f"{mean(values):+.1f}" if values else ""
    if len(values) > 2:
        text += f" ± {half_width(values):.1f}"
    return text


def above(mine: dict[Pair, dict[str, float]], theirs: dict[Pair, dict[str, float]], measure: str, data: str) -> str:
    """Return how far the better of plain and switched lies above that of other runs, over the pairs with all four."""
    ways = WAYS[measure]
    both = [pair for pair in mine if pair[0] == data and all({*ways} <= {*one.get(pair, {})} for one in (mine, theirs))]
    if not both:
        return ""
    ours, other = (max(ways, key=lambda way: mean(one[pair][way] for pair in both)) for one in (mine, theirs))
    return f"{interval([mine[pair][ours] - theirs[pair][other] for pair in both])} ({len(both)})"


def table(runs: Runs, data: str) -> list[list[str]]:
    """Return the rows of one data set, heads first: means, with the number of pairs where it is less than the row's."""
    heads = [f"{column} - {rival}" for rival, columns in RIVALS.items() for column in columns]
    better = [f"{measure} above the better" for measure in WAYS]
    lines = [["SAR", "pairs", "base / new", "joint base / new", *COLUMNS, *heads, "H - no SAR switched", *better]]
    for name, of_pair in runs.items():
        pairs = [pair for pair in of_pair if pair[0] == data]
        if not pairs:
            continue
        method = f"{name.partition(', ')[0]}, "  # ProGrad, squared 1 is compared with ProGrad, no SAR
        cells = [name, str(len(pairs))]
        for side in ("", "joint "):
            base, new = (mean(of_pair[pair][side + key] for pair in pairs) for key in ("base", "new"))
            cells.append(f"{base:.1f} / {new:.1f}")
        for column in COLUMNS:
            values = [of_pair[pair][column] for pair in pairs if column in of_pair[pair]]
            cells.append(f"{mean(values):.1f}" + f" ({len(values)})" * (len(values) < len(pairs)) if values else "")
        for rival, column, other in (
            *((rival, column, column) for rival, columns in RIVALS.items() for column in columns),
            ("no SAR", "H", "switched H"),
        ):
            theirs = runs.get(f"{method}{rival}") or runs.get(rival) or {}
            both = [pair for pair in pairs if column in of_pair[pair] and other in theirs.get(pair, {})]
            same = theirs is of_pair and column == other
            cells.append("" if same else interval([of_pair[pair][column] - theirs[pair][other] for pair in both]))
        plain = runs.get(f"{method}no SAR") or runs.get("no SAR") or {}
        cells += ["" if plain is of_pair else above(of_pair, plain, measure, data) for measure in WAYS]
        lines.append(cells)
    return lines


def against(runs: Runs, rival: str, sets: list[str]) -> list[list[str]]:
    """Return the rows of all runs against one of them, heads first."""
    lines = [["class model", "pairs", *sets, "mean of the sets"]]
    for name, of_pair in runs.items():
        gaps: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for (data, deal, seed), one in of_pair.items():
            if other := runs[rival].get((data, deal, seed)):
                gaps[deal, seed][data] = one["class model"] - other["class model"]
        whole = [mean(gap.values()) for gap in gaps.values() if len(gap) == len(sets)]
        each = [interval([gap[data] for gap in gaps.values() if data in gap]) for data in sets]
        lines.append([name, str(len(whole)), *each, interval(whole)])
    return lines


def main() -> None:
    """Print a Markdown table for each data set, or one of all runs against one."""
    rival, folders = (sys.argv[2], sys.argv[3:]) if sys.argv[1:2] == ["--against"] else ("", sys.argv[1:])
    runs = read([Path(folder) for folder in folders or FOLDERS])
    sets = sorted({pair[0] for of_pair in runs.values() for pair in of_pair})
    tables = {f"against {rival}": against(runs, rival, sets)} if rival else {data: table(runs, data) for data in sets}
    for title, (heads, *lines) in tables.items():
        print(f"\n**{title}**\n")
        for cells in (heads, ["---"] * len(heads), *lines):
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
