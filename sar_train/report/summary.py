"""Summarise results in sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sar_train.report.packed import PROTOCOLS
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, by_setting, grouped, over_datasets, score, zero_shot
from sar_train.report.tables import incomparable, relations
from sar_train.report.wording import counted, listed, method_name, seeds_text, shots_text, without_sar

SMALL = 0.05
"""Differences below this many points count as none; they would be shown as 0.0 or 0.1."""
_SAME_RELATION = 0.005
"""Rank correlations are shown with two decimals; what differs by less is the same."""


@dataclass(frozen=True)
class _Move:
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
    sentences = []
    for protocol in PROTOCOLS:
        if not (runs := results.of(protocol)):
            continue
        methods = list(dict.fromkeys(map(_method, runs)))
        facts = [
            f"{'sweeps' if protocol == 'custom' else protocol}: {counted(len(runs), 'run')}",
            "trained on " + listed(sorted({run.dataset for run in runs})),
            listed(methods) if len(methods) < 4 else counted(len(methods), "method"),
            "under " + listed(sorted({run.backbone for run in runs})),
            listed([shots_text(count) for count in sorted({run.shots for run in runs})]),
            ("seed " if len({run.seed for run in runs}) == 1 else "seeds ") + seeds_text(run.seed for run in runs),
        ]
        sentences.append(", ".join(facts) + ".")
    return sentences


def _method(run: Result) -> str:
    custom = run.protocol == "custom"  # where the name is the user's choice
    return method_name(without_sar(str(run["config"]["method"] if custom else run["name"])))


def claims(results: ResultSet) -> list[tuple[str, list[str]]]:
    """Return sentences on what SAR did to base, new and relations, by backbone and number of shots."""
    sentences = []
    for (backbone, shots), scenes in by_setting(grouped(results.of("base-to-new"))).items():
        if lines := _claims(scenes):
            title = scenes[0].dataset if len(scenes) == 1 else f"average of {counted(len(scenes), 'dataset')}"
            sentences.append((f"{title}, {shots_text(shots)}, {backbone}", lines))
    return sentences


def _claims(scenes: Sequence[Scene]) -> list[str]:
    methods = dict.fromkeys(method for scene in scenes for method in scene.methods)
    moves = [move for method in methods if (move := _move(scenes, method))]
    if not moves:
        return []
    total = counted(len(moves), "method")
    up = [move for move in moves if move.new >= SMALL]
    down = [move for move in moves if move.new <= -SMALL]
    lines = [
        f"SAR raised new accuracy for {len(up)} of {total}{_named(up)} and lowered it for {len(down)}{_named(down)}."
    ]
    if clear := [move for move in moves if move.clear]:
        lines.append(
            "The change is larger than the standard deviation over seeds, without SAR and with it, for "
            f"{len(clear)}{_named(clear)}."
        )
    steady = [move for move in moves if move.base >= -SMALL]
    worst = min(moves, key=lambda move: move.base)
    paid = f"; {worst.method} paid most, {-worst.base:.1f} points" if worst.base <= -SMALL else ""
    lines.append(f"Base accuracy was kept or raised for {len(steady)} of {total}{paid}.")
    lost = [move for move in moves if move.without_new < move.zero_new - SMALL]
    lines.append(f"Without SAR, {len(lost)} of {total} ended below zero-shot on new classes{_named(lost, gain=False)}.")
    if back := [move for move in lost if move.without_new + move.new >= move.zero_new - SMALL]:
        lines.append(f"With SAR, {len(back)} of these reached it{_named(back, gain=False)}.")
    if in_one := {move.method: move.open for move in moves if move.open is not None}:
        raised = sum(change >= SMALL for change in in_one.values())
        lines.append(
            "In one ranking over base and new classes, SAR raised the harmonic mean for "
            f"{raised} of {counted(len(in_one), 'method')} ({listed([_signed(*one) for one in in_one.items()], 12)})."
        )
    sides = [pair for scene in scenes for pair in scene.methods.values()]
    ends = [[relations(side) for side in pair] for pair in sides]
    if gains := [with_sar.value - without.value for without, with_sar in ends if without and with_sar]:
        nearer = f"{sum(gain > _SAME_RELATION for gain in gains)} of {len(gains)} comparisons."
        lines.append(f"Relations among held-out names stayed nearer to the hand-crafted ones with SAR in {nearer}")
    compared = [pair for pair in sides if all(pair)]
    seeds = min(len({run.seed for run in without} & {run.seed for run in with_sar}) for without, with_sar in compared)
    if seeds < 3:
        few = f"With {counted(seeds, 'seed')}, this says little about the paper's claim"
        return [*lines, f"{few}: new classes up for every method, base kept."]
    verdict = "holds here" if len(up) == len(steady) == len(moves) else "does not hold here"
    return [*lines, f"The paper's claim, new classes up for every method with base kept, {verdict}."]


def _move(scenes: Sequence[Scene], method: str) -> _Move | None:
    """Measure the effect of SAR on a method; None if no dataset has both sides or there are no new classes."""
    compared = [(scene, sides) for scene in scenes if (sides := scene.methods.get(method)) and all(sides)]
    if not compared:
        return None
    by_side = [[score(sides[k]) for _, sides in compared] for k in (0, 1)]
    before, after = (over_datasets(scores) for scores in by_side)
    zero = over_datasets(zero_shot(scene.runs) for scene, _ in compared)
    if not (before.base and before.new and after.base and after.new and zero.new):
        return None
    new = after.new.value - before.new.value
    spreads = [one.new.sd for scores in by_side for one in scores if one.new]
    clear = len(compared) == 1 and all(sd is not None and abs(new) > sd for sd in spreads)
    start, end = (side.open.both if side.open else None for side in (before, after))
    return _Move(
        method_name(method),
        after.base.value - before.base.value,
        new,
        before.new.value,
        zero.new.value,
        clear,
        None if start is None or end is None else end - start,
    )


def _named(moves: list[_Move], *, gain: bool = True) -> str:
    names = [_signed(move.method, move.new) if gain else move.method for move in moves]
    return f" ({listed(names, 12)})" if names else ""


def _signed(method: str, change: float) -> str:
    return f"{method} {change:+.1f}".replace("-", "−")


def warnings(results: ResultSet) -> list[str]:
    """Return what a reader has to know before believing the figures."""
    wrong = sorted({run.dataset for run in results.runs if (run["zero_shot_check"] or {}).get("ok") is False})
    codes = len({run.code for run in results.runs})
    replaced = f"{counted(len(results.replaced), 'file')} of older code left out, as newer code has made the same runs"
    lines = [
        (wrong, f"Zero-shot accuracy is below the known one on {listed(wrong)}: see the set-up checks first."),
        *((True, line) for line in incomparable(results.runs)),
        (codes > 1, f"The runs were made by {codes} states of the code."),
        (results.replaced, f"{replaced}: {listed(results.replaced)}."),
        (results.copies, f"Left out as copies of other runs: {listed(results.copies)}."),
        (results.skipped, f"Skipped, as no results: {listed(results.skipped)}."),
    ]
    return [line for needed, line in lines if needed]
