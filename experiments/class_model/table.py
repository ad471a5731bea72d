"""Print ``benchmarks/results/class_model.csv`` as the tables of ``benchmarks/results/class_model.md``.

    python experiments/class_model/table.py [FILE.csv]

*before* are the statistics at commit c035733b, *model* is the class model; both of a pair are on the same draws.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = ("base", "new", "h", "accuracy", "nll", "ece", "auroc", "false_alarms", "rejected")
STREAMS = ("all", "quarter", "trained", "added", "skewed", "twenty", "unknown")
NAMES = {"photos": "", "dim": ", dim", "grey": ", grey", "poster": ", poster"}


def read(path: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return figures (9,) by system, what, deal, set, kind and photos, then by draw."""
    cells: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
    with Path(path).open(encoding="utf-8") as file:
        for system, what, deal, name, kind, draw, photos, *values in list(csv.reader(file))[1:]:
            cells[system, what, deal, name, kind, photos][draw] = [float(value or "nan") for value in values]
    return cells


def names(cells: dict[tuple[str, ...], dict[str, Any]], deal: str) -> None:
    """Print both systems by names and photos, and the mean change over all columns of a kind."""
    print(
        "| set | photos | H (spread) | worst draw | accuracy | nats | debiased error | AUROC "
        "| rejected at false alarms |"
    )
    print("|" + "---|" * 9)
    means: dict[str, list[Any]] = defaultdict(list)
    for (system, what, of, name, kind, photos), draws in cells.items():
        before = cells.get(("before", what, of, name, kind, photos), {})
        shared = sorted(draws.keys() & before.keys())
        if (system, what, of) != ("model", "names", deal) or not shared:
            continue
        then, now = (np.array([one[draw] for draw in shared]) for one in (before, draws))
        (_, _, h0, a0, n0, e0, u0, f0, r0), (_, _, h1, a1, n1, e1, u1, f1, r1) = then.mean(0), now.mean(0)
        for key in (name if kind == "photos" else "", "same kind" if kind == "photos" else "another kind"):
            means[key].append((now - then).mean(0)[2:7])
        print(
            f"| {name}{NAMES.get(kind, f', {kind}')} | {'by name' if photos == '0' else photos} "
            f"| {h0:.1f} → {h1:.1f} ({now[:, 2].std():.1f}) | {(now - then)[:, 2].min():+.1f} | {a0:.1f} → {a1:.1f} "
            f"| {n0:.3f} → {n1:.3f} | {e0:.1f} → {e1:.1f} | {u0:.3f} → {u1:.3f} "
            f"| {r0:.0f} at {f0:.0f} → {r1:.0f} at {f1:.0f} |"
        )
    print("\n| mean change | H | accuracy | nats | debiased error | AUROC | least H | most nats | least AUROC |")
    print("|" + "---|" * 9)
    for key, values in means.items():
        if key:
            h, accuracy, nats, error, area = np.mean(values, axis=0)
            least, most = np.min(values, axis=0), np.max(values, axis=0)
            print(
                f"| {key} | {h:+.1f} | {accuracy:+.1f} | {nats:+.3f} | {error:+.1f} | {area:+.3f} "
                f"| {least[0]:+.1f} | {most[2]:+.3f} | {least[4]:+.3f} |"
            )


def streams(cells: dict[tuple[str, ...], dict[str, Any]], deal: str) -> None:
    """Print the change of H by each stream, by name and two photos together, and the worst draw."""
    changes: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, what, of, name, kind, _), draws in cells.items():
        if what in STREAMS and of == deal:
            changes[name, kind][what] += [after - before for before, after, *_ in draws.values()]
    print("| set | " + " | ".join(STREAMS) + " | worst draw | below -2 |\n|" + "---|" * 10)
    for (name, kind), by_stream in changes.items():
        means = [f"{np.mean(by_stream[one]):+.1f}" for one in STREAMS]
        every = [value for values in by_stream.values() for value in values]
        below = sum(value < -2 for value in every)
        title = name + NAMES.get(kind, f", {kind}")
        print(f"| {title} | {' | '.join(means)} | {min(every):+.1f} | {below} of {len(every)} |")


def promises(cells: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Print expected and measured accuracies."""
    print(
        "| deal, set | photos | trained, expected | measured | added, expected | measured | spread of the difference |"
    )
    print("|" + "---|" * 7)
    for (_, what, deal, name, _, photos), draws in cells.items():
        if what == "promise":
            values = 100 * np.array([one[:4] for one in draws.values()])
            shown = " | ".join(f"{value:.0f}" for value in values.mean(0))
            print(f"| {deal}, {name} | {photos} | {shown} | {(values[:, 2] - values[:, 3]).std():.0f} |")


def few(cells: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Print both systems with two and three classes that are named as parts are."""
    print("| classes, set | photos | accuracy | nats | debiased error | AUROC | rejected at false alarms |")
    print("|" + "---|" * 7)
    for (system, what, deal, name, kind, photos), draws in cells.items():
        if system == "model" and what.endswith("classes"):
            then, now = (
                np.mean([*one.values()], 0) for one in (cells["before", what, deal, name, kind, photos], draws)
            )
            pairs = [f"{then[i]:.{n}f} → {now[i]:.{n}f}" for i, n in ((3, 1), (4, 2), (5, 1), (6, 2))]
            print(f"| {what}, {name} | {photos} | {' | '.join(pairs)} | {now[8]:.0f} at {now[7]:.0f} |")


def alone(cells: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Print accuracies on trained classes among themselves."""
    print("| set | by name | class model | linear probe |\n|---|---|---|---|")
    for (_, what, _, name, _, _), draws in cells.items():
        if what == "alone":
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in np.mean([*draws.values()], 0)[:3]) + " |")


if __name__ == "__main__":
    table = read(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/class_model.csv")
    for deal in ("reporting", "choosing"):
        print(f"\n{deal}\n")
        names(table, deal)
        print()
        streams(table, deal)
    for part in (promises, few, alone):
        print()
        part(table)
