"""Summarise results in sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sar_train.report.base_new import incomparable, zero_shot
from sar_train.report.packed import PROTOCOLS
from sar_train.report.results import SAR, Result, ResultSet
from sar_train.report.scores import Groups, Scene, grouped, mean, over_datasets, pairs, score, shots
from sar_train.report.wording import counted, listed, method_name, seeds_of

SMALL = 0.05
"""Differences below this many points count as none; they would be shown as 0.0 or 0.1."""
_SAME_RELATION = 0.005
"""Rank correlations are shown with two decimals; what differs by less is the same."""


@dataclass(frozen=True)
class Move:
    """The effect of SAR on one method in points, averaged over seeds and datasets; ``open`` on the harmonic mean."""

    method: str
    base: float
    new: float
    without_new: float
    zero_new: float
    clear: bool
    open: float | None


def what_was_run(results: ResultSet) -> list[str]:
    """Return a sentence for each experiment."""
    found = []
    for protocol in PROTOCOLS:
        if not (runs := results.of(protocol)):
            continue
        name = "sweeps" if protocol == "custom" else protocol
        methods = list(dict.fromkeys(_method(run) for run in runs))
        parts = [
            f"{name}: {counted(len(runs), 'run')}",
            "trained on " + listed(sorted({run.dataset for run in runs})),
            listed(methods) if len(methods) < 4 else counted(len(methods), "method"),
            "under " + listed(sorted({run.backbone for run in runs})),
            listed([shots(count) for count in sorted({run.shots for run in runs})]),
            ("seed " if len({r.seed for r in runs}) == 1 else "seeds ") + seeds_of(run.seed for run in runs),
        ]
        found.append(", ".join(parts) + ".")
    return found


def _method(run: Result) -> str:
    custom = run.protocol == "custom"  # where the name is the user's choice
    return method_name(str(run["config"]["method"] if custom else run["name"]).replace(SAR, ""))


def claims(results: ResultSet) -> list[tuple[str, list[str]]]:
    """Return sentences on what SAR did to base, new and relations, by backbone and number of shots."""
    groups = grouped(results.of("base-to-new"))
    found = []
    for backbone, count in dict.fromkeys((scene.backbone, scene.shots) for scene in groups):
        scenes = {s: rows for s, rows in groups.items() if (s.backbone, s.shots) == (backbone, count)}
        if lines := _claims(scenes):
            where = next(iter(scenes)).dataset if len(scenes) == 1 else f"average of {counted(len(scenes), 'dataset')}"
            found.append((f"{where}, {shots(count)}, {backbone}", lines))
    return found


def _claims(scenes: Groups) -> list[str]:
    moves = [move for method in _methods(scenes) if (move := _move(scenes, method))]
    if not moves:
        return []
    total = counted(len(moves), "method")
    up = [move for move in moves if move.new >= SMALL]
    down = [move for move in moves if move.new <= -SMALL]
    lines = [
        f"SAR raised new accuracy for {len(up)} of {total}{_named(up)} and lowered it for {len(down)}{_named(down)}.",
    ]
    if clear := [move for move in moves if move.clear]:
        lines.append(
            "The change is larger than the standard deviation over seeds, without SAR and with it, for "
            f"{len(clear)}{_named(clear)}."
        )
    kept = [move for move in moves if move.base >= -SMALL]
    worst = min(moves, key=lambda move: move.base)
    lines.append(
        f"Base accuracy was kept or raised for {len(kept)} of {total}"
        + (f"; {worst.method} paid most, {-worst.base:.1f} points." if worst.base <= -SMALL else ".")
    )
    lost = [move for move in moves if move.without_new < move.zero_new - SMALL]
    lines.append(f"Without SAR, {len(lost)} of {total} ended below zero-shot on new classes{_named(lost, gain=False)}.")
    if back := [move for move in lost if move.without_new + move.new >= move.zero_new - SMALL]:
        lines.append(f"With SAR, {len(back)} of these reached it{_named(back, gain=False)}.")
    lines += [*_in_one_ranking(moves), *_relations(scenes)]
    compared = [pair for rows in scenes.values() for pair in pairs(rows).values() if all(pair)]
    seeds = min(len({run.seed for run in without} & {run.seed for run in with_sar}) for without, with_sar in compared)
    if seeds < 3:
        few = f"With {counted(seeds, 'seed')}, this says little about the paper's claim"
        return [*lines, f"{few}: new classes up for every method, base kept."]
    holds = len(up) == len(moves) and len(kept) == len(moves)
    verdict = "holds here" if holds else "does not hold here"
    return [*lines, f"The paper's claim, new classes up for every method with base kept, {verdict}."]


def _methods(scenes: Groups) -> list[str]:
    return list(dict.fromkeys(method for rows in scenes.values() for method in pairs(rows)))


def _move(scenes: Groups, method: str) -> Move | None:
    """Measure the effect of SAR on a method; None if no dataset has both sides or there are no new classes."""
    found = [(rows, pair) for rows in scenes.values() if (pair := pairs(rows).get(method)) and all(pair)]
    if not found:
        return None
    by_side = [[score(pair[side]) for _, pair in found] for side in (0, 1)]
    before, after = (over_datasets(side) for side in by_side)
    zero = over_datasets(zero_shot([run for runs in rows.values() for run in runs]) for rows, _ in found)
    if not (before.base and before.new and after.base and after.new and zero.new):
        return None
    new = after.new.value - before.new.value
    spreads = [s.new.sd for side in by_side for s in side if s.new]
    clear = len(found) == 1 and all(sd is not None and abs(new) > sd for sd in spreads)
    base = after.base.value - before.base.value
    in_one = [side.open.both if side.open else None for side in (before, after)]
    opened = None if in_one[0] is None or in_one[1] is None else in_one[1] - in_one[0]
    return Move(method_name(method), base, new, before.new.value, zero.new.value, clear, opened)


def _named(moves: list[Move], *, gain: bool = True) -> str:
    parts = [f"{move.method} {move.new:+.1f}".replace("-", "−") if gain else move.method for move in moves]
    return f" ({listed(parts, 12)})" if parts else ""


def _in_one_ranking(moves: list[Move]) -> list[str]:
    measured = [move for move in moves if move.open is not None]
    if not measured:
        return []
    changes = listed([f"{move.method} {move.open:+.1f}".replace("-", "−") for move in measured], 12)
    up = sum((move.open or 0) >= SMALL for move in measured)
    return [
        "In one ranking over base and new classes, SAR raised the harmonic mean for "
        f"{up} of {counted(len(measured), 'method')} ({changes})."
    ]


def _relations(scenes: Mapping[Scene, Mapping[str, list[Result]]]) -> list[str]:
    nearer, total = 0, 0
    for rows in scenes.values():
        for sides in pairs(rows).values():
            after = [mean((run["relations"] or {}).get("after") for run in side) for side in sides]
            if after[0] and after[1]:
                total += 1
                nearer += after[1].value - after[0].value > _SAME_RELATION
    if not total:
        return []
    return [
        "Relations among held-out names stayed nearer to the hand-crafted ones with SAR in "
        f"{nearer} of {total} comparisons."
    ]


def warnings(results: ResultSet) -> list[str]:
    """Return what a reader has to know before believing the figures."""
    found = []
    wrong = sorted({run.dataset for run in results.runs if (run["zero_shot_check"] or {}).get("ok") is False})
    if wrong:
        found.append(f"Zero-shot accuracy is below the known one on {listed(wrong)}: see the set-up checks first.")
    found += incomparable(results.runs)
    codes = sorted({run.code for run in results.runs})
    if len(codes) > 1:
        found.append(f"The runs were made by {len(codes)} states of the code.")
    if results.replaced:
        files = counted(len(results.replaced), "file")
        found.append(
            f"{files} of older code left out, as newer code has made the same runs: {listed(results.replaced)}."
        )
    if results.copies:
        found.append(f"Left out as copies of other runs: {listed(results.copies)}.")
    if results.skipped:
        found.append(f"Skipped, as no results: {listed(results.skipped)}.")
    return found
