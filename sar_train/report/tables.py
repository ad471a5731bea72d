"""All tables: base-to-new, joint accuracy, similarities, published, few-shot, other datasets, sweeps, set-up."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report import published
from sar_train.report.formats import Cell, Column, Difference, Table, Value, make_table
from sar_train.report.published import method_name
from sar_train.report.results import Result, ResultSet, differing_settings
from sar_train.report.scores import (
    Mean,
    Scene,
    Score,
    Sides,
    by_setting,
    by_split,
    flat_mean,
    grouped,
    interval,
    joint_measures,
    linear_probe,
    mean,
    on_all,
    over_datasets,
    score,
    shots_text,
    slug,
    zero_shot,
)
from sar_train.training.record import SWITCHED, WAYS

METHOD = Column("method", text=True)
SEEDS = Column("seeds", text=True)
SIDES = ("without SAR", "with SAR")
JOINT_H = "Joint H is the same mean over base and new classes together."
MODEL_H = "Class model: joint H with the class model, new classes added by name; other columns are without it."
INTERVAL = (
    "Differences are those of the figures before rounding; ± is half the width of their 95 % interval, by Student's t "
    "over runs of the same seed."
)
ABOVE = "SAR above the better of plain and switched"
SWITCH = "Switched: trained classes by the learned prompt, all others by the hand-crafted one."
MEASURES = tuple(
    Column(name, rivals=name, note=note)
    for name, note in (("base", ""), ("new", ""), ("H", ""), ("joint H", JOINT_H), ("class model", MODEL_H))
)
"""Columns of `Score.measures`."""
OF_DATASET = ("data", "template", "novel")
"""Settings that always differ between datasets."""


def all_tables(results: ResultSet) -> list[Table]:
    """Return every table that the results have rows for, in the order of the report; keys are unique."""
    makers: tuple[Callable[[ResultSet], Iterable[Table]], ...] = (
        base_to_new, joint_accuracy, similarities, beside_published, few_shot, other_datasets, sweeps, set_up,
    )  # fmt: skip
    return [table for maker in makers for table in maker(results) if table.rows]


def closing_tables(results: ResultSet) -> list[Table]:
    """Return the tables of accuracies, and the published ones where ours are under the backbone of these."""
    sections = ["base-to-new", "open", "few-shot", *TRANSFER, "custom"]
    backbones = [(run["backbone"]["name"], run["config"].get("pretrained")) for run in results.runs]
    sections += ["published"] * any(published.is_published_backbone(*backbone) for backbone in backbones)
    tables = [table for table in all_tables(results) if table.section in sections and not table.folded]
    return sorted(tables, key=lambda table: table.section == "published")


# -------------------------------------------------------------------------------------------------- notes and phrases
def listed(names: Sequence[str], most: int = 6) -> str:
    """Return ``a, b and c``; a long list is cut and counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else " and ".join([", ".join(shown[:-1]), shown[-1]]) if shown else "none"


def _seeds(seeds: Iterable[int]) -> str:
    """Return ``1–3`` for consecutive numbers, ``1, 3`` for others."""
    numbers = sorted(set(seeds))
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _spread(runs: Sequence[Result]) -> str:
    """Explain what a row is the mean of, and what is shown with it."""
    seeds, splits = {run.seed for run in runs}, by_split(runs)
    several = "Mean ± standard deviation over seeds, in the columns that give one."
    note = several if len(seeds) > 1 else "One seed: no deviation can be given."
    over = f" Rows without training are means over the {len(splits)} splits of the classes, without a deviation."
    return note + over * (len(splits) > 1)


def _uneven(methods: Mapping[str, Sides]) -> list[str]:
    """Return a warning for each method that was run without SAR and with it, but not on the same seeds."""
    seeds = {method: [{run.seed for run in side} for side in sides] for method, sides in methods.items()}
    uneven = [method for method, (without, with_sar) in seeds.items() if without and with_sar and without != with_sar]
    return [f"{method_name(method)}: the two sides are of different seeds" for method in uneven]


def _zero_shot_varies(runs: Iterable[Result]) -> list[str]:
    """Return a warning if runs of the same classes and test photos differ in zero-shot accuracy."""
    values: dict[Any, list[float]] = {}
    for run in runs:
        drawn = (run.seed, run.shots) if run["dataset"].get("split_origin") == "ours" else None
        key = run["config"].get("base_classes"), drawn
        values.setdefault(key, []).append(run["zero_shot"]["base_accuracy"])
    gap = max(max(same) - min(same) for same in values.values())
    warning = f"the runs' zero-shot accuracies differ by up to {gap:.1f}: templates or photos differ"
    return [warning] if gap > 0.05 else []


def incomparable(runs: Iterable[Result]) -> list[str]:
    """Return a note if a published dataset was not run on its published split with all its images."""
    names = sorted({run.dataset for run in runs if not run.comparable})
    return [f"Not the published split and photos, not to be compared with papers: {listed(names)}."] if names else []


def _add(
    body: list[Sequence[Value]],
    apart: list[int],
    method: str,
    sides: Sequence[Sequence[Value]],
    intervals: Iterable[float | None] = (),
) -> None:
    """Add the rows of a method without SAR, with it, and their difference, which does not compete.

    Args:
        body: rows of a table.
        apart: numbers of the rows that do not compete.
        method: its name without SAR.
        sides: the values without SAR and with it; empty for a side that was not run.
        intervals: of the first differences (`scores.interval`).
    """
    body += [(name, *values) for name, values in zip(_names(method), sides, strict=True) if values]
    if all(sides):
        apart.append(len(body))
        pairs: Any = itertools.zip_longest(*sides, intervals)
        body.append(("difference", *("" if isinstance(b, str) else Difference(b, a, half) for a, b, half in pairs)))


def _names(method: str) -> tuple[str, str]:
    return method_name(method), f"{method_name(method)} + SAR"


def _add_switched(
    body: list[Sequence[Value]],
    apart: list[int],
    method: str,
    scored: Sequence[tuple[Score | None, Score | None]],
    last: Sequence[str],
    sides: Sides = ([], []),
) -> None:
    """Add the rows of a method without SAR and with it, each with its row switch, and what SAR adds.

    Args:
        body: rows of a table.
        apart: numbers of the rows that do not compete.
        method: its name without SAR.
        scored: without the switch and with it, each without SAR and with it.
        last: the last cell of either side.
        sides: the runs, from which intervals come.
    """
    for name, end, *scores in zip(_names(method), last, *scored, strict=True):
        for label, one in zip((name, f"{name}, switched"), scores, strict=True):
            body += [(label, *one.measures(), end)] if one and one.base and (one is scores[0] or one.new) else []
    plain = scored[0]
    if not plain[0] or not plain[1]:
        return
    means = [[one.measures() if one else (None,) * len(MEASURES) for one in pair] for pair in scored]

    def above(k: int, ways: Sequence[int]) -> Difference:
        """Return the difference of a measure, each side by the better one of some ways that were all measured."""
        values = [[_value(means[way][side][k]) for way in ways] for side in (0, 1)]
        if any(value is None for side in values for value in side):
            return Difference(None, None)
        better = [max(ways, key=lambda way: _value(means[way][side][k]) or 0) for side in (0, 1)]
        by_seed = [
            {run.seed: _value(score([run], SWITCHED if way else "metrics").measures()[k]) for run in side}
            for way, side in zip(better, sides, strict=True)
        ]
        return Difference(means[better[1]][1][k], means[better[0]][0][k], interval(*by_seed))

    apart += [len(body), len(body) + 1]
    body.append(("difference", *(above(k, (0,)) for k in range(len(MEASURES))), ""))
    if scored[1][0] and scored[1][0].new:
        body.append((ABOVE, "", "", *(above(k, (0, 1)) for k in range(2, len(MEASURES))), ""))


def _value(cell: Mean | float | None) -> float | None:
    return cell.value if isinstance(cell, Mean) else cell


# ------------------------------------------------------------------------------------------------------- base to new
def base_to_new(results: ResultSet) -> Iterator[Table]:
    """Yield averages over several datasets, then each dataset's accuracies, similarity structure and other scores."""
    scenes = grouped(results.of("base-to-new"))
    for (backbone, shots), of_setting in by_setting(scenes).items():
        if len(of_setting) > 1:
            yield _average(backbone, shots, of_setting)
    for scene in scenes:
        yield _accuracies(scene)
        yield _relations(scene, folded=len(scenes) > 2)
        body = []
        for name, runs in scene.rows.items():
            for way in _ways(runs):
                scored = score(runs, way)
                body.append((method_name(name), WAYS.get(way, way), *scored.measures()[:3], _seeds(scored.seeds)))
        columns = (METHOD, Column("scoring mode", text=True), *map(Column, ("base", "new", "H")), SEEDS)
        key, title = f"other-ways-{scene.slug}", f"Other scoring modes on {scene}: accuracy in percent"
        yield make_table(key, "base-to-new", title, columns, body, folded=len(scenes) > 2)


def _ways(runs: Iterable[Result]) -> list[str]:
    """Return the other ways in which runs answered, such as DePT's text branch."""
    return list(dict.fromkeys(way for run in runs for way in run["other_metrics"] or {}))


def _accuracies(scene: Scene) -> Table:
    body: list[Sequence[Value]] = []
    for name, scored in (("zero-shot", zero_shot(scene.runs)), ("linear probe (base only)", linear_probe(scene.runs))):
        body.append((name, *scored.measures(), _seeds(scored.seeds)))
    apart = [1]
    for method, sides in scene.methods.items():
        both: Any = [[score(side, way) if side else None for side in sides] for way in ("metrics", SWITCHED)]
        _add_switched(body, apart, method, both, [_seeds(run.seed for run in side) for side in sides], sides)
    notes = (
        _spread(scene.runs),
        "H is the harmonic mean of the averaged base and new accuracies. Bold: the best, the linear probe apart.",
        JOINT_H,
        MODEL_H,
        SWITCH,
        INTERVAL,
        *_uneven(scene.methods),
        *_zero_shot_varies(scene.runs),
        *incomparable(scene.runs),
    )
    title = f"Base to new on {scene}: accuracy in percent"
    columns = (METHOD, *MEASURES, SEEDS)
    return make_table(f"base-to-new-{scene.slug}", "base-to-new", title, columns, body, notes, apart=apart)


def _average(backbone: str, shots: int, scenes: Sequence[Scene]) -> Table:
    """Return averages over datasets, of what was run on all of them."""
    zero, count = over_datasets(zero_shot(scene.runs) for scene in scenes), str(len(scenes))
    body: list[Sequence[Value]] = [("zero-shot", *zero.measures(), count)]
    apart, missing, varied = list[int](), [], []
    switched = on_all(scenes, SWITCHED)
    for method, averages in on_all(scenes).items():
        sides = [scene.methods.get(method, ([], [])) for scene in scenes]
        _add_switched(body, apart, method, (averages, switched[method]), (count, count))
        varied += sorted({note for pair in sides for note in _uneven({method: pair})})
        for average, runs in zip(
            averages, (list(itertools.chain(*column)) for column in zip(*sides, strict=True)), strict=True
        ):
            if runs and average is None:
                missing.append(method_name(runs[0].name))
            keys = [key for key in differing_settings(runs) if key not in OF_DATASET] if average else []
            varied += [f"{method_name(runs[0].name)}: not the same {listed(keys)} on all datasets"] if keys else []
    names = ", ".join(scene.dataset for scene in scenes)
    notes = [f"Averages of base and of new over {names}; H is the harmonic mean of these averages. Bold: the best."]
    notes += [f"Not on all {count} datasets, and left out: {', '.join(missing)}."] * bool(missing)
    notes += [SWITCH, JOINT_H, MODEL_H, *varied, *incomparable(run for scene in scenes for run in scene.runs)]
    title = f"Base to new, average of {count} datasets, {shots_text(shots)}, {backbone}: accuracy in percent"
    key = slug(f"base-to-new-average-{shots or 'all'}shots-{backbone}")
    heads = (METHOD, *MEASURES, Column("datasets", text=True))
    return make_table(key, "base-to-new", title, heads, body, notes, apart=apart)


def _correlation(runs: Iterable[Result], when: str = "after") -> Mean | None:
    """Return Spearman's correlation of similarities among held-out names, before or after training."""
    return mean((run["relations"] or {}).get(when) for run in runs)


def _relations(scene: Scene, *, folded: bool) -> Table:
    body: list[Sequence[Value]] = []
    for method, sides in scene.methods.items():
        without, with_sar = map(_correlation, sides)
        if without or with_sar:
            start = _correlation(itertools.chain(*sides), "before")
            values = (start and start.value, without, with_sar, Difference(with_sar, without))
            body.append((method_name(method), *values))
    names = max((int((run["relations"] or {}).get("names") or 0) for run in scene.runs), default=0)
    columns = (
        METHOD,
        Column("at the start", digits=2),
        *(Column(side, digits=2, rivals="after") for side in SIDES),
        Column("difference", digits=2),
    )
    note = (
        f"Spearman's rank correlation between hand-crafted and prompted similarities of {names} names that took no "
        "part in training; 1 is as the hand-crafted prompt has them."
    )
    title = f"Similarity structure of held-out names on {scene}"
    return make_table(f"relations-{scene.slug}", "base-to-new", title, columns, body, (note,), folded=folded)


# ------------------------------------------------------------------------------------------------------- joint accuracy
OVER = {"images": "over images", "per_class": "every class counting the same"}
ACCURACIES = ("base_accuracy", "new_accuracy", "accuracy")
AREAS = {"auroc": "AUROC", "openworld_auc": "OpenworldAUC", "ausuc": "AUSUC"}
OPEN_COLUMNS = (
    METHOD,
    *(Column(name, rivals=name) for name in ("joint base", "joint new", "joint H", "joint accuracy")),
    *(Column(name, rivals=name, digits=3) for name in AREAS.values()),
    SEEDS,
)


def joint_accuracy(results: ResultSet) -> Iterator[Table]:
    """Yield two tables for each dataset that was measured so: over images and, folded, over classes."""
    for scene, over in itertools.product(grouped(results.of("base-to-new")), OVER):
        body = [_open_row("zero-shot", scene.runs, "zero_shot", over)]
        for name, runs in scene.rows.items():
            body.append(_open_row(method_name(name), runs, "metrics", over))
            body += [_open_row(f"{method_name(name)}, {WAYS.get(way, way)}", runs, way, over) for way in _ways(runs)]
        notes = (
            _spread(scene.runs),
            "Every image is ranked among base and new classes together. Accuracies are in percent, joint H is the "
            "harmonic mean of the averaged joint base and joint new; areas lie between 0 and 1. Bold: the best.",
            "AUROC: a base image has a larger base probability than a new one. OpenworldAUC: and both are right among "
            "the classes of their own side. AUSUC: the area under joint new over joint base accuracy while an offset "
            "is taken off the base logits.",
        )
        key = f"open-{scene.slug}" if over == "images" else f"open-classes-{scene.slug}"
        title = f"Joint accuracy over base and new classes on {scene}, {OVER[over]}"
        yield make_table(key, "open", title, OPEN_COLUMNS, filter(None, body), notes, folded=over != "images")


def _open_row(name: str, runs: Sequence[Result], way: str, over: str) -> Sequence[Value]:
    """Return a row, empty where no run has such measures; the mean over splits and of zero-shot has no deviation."""
    columns: list[list[Mean | None]] = []
    seeds: list[int] = []
    for split in by_split(runs):
        by_seed = {run.seed: measures for run in reversed(split) if (measures := joint_measures(run, way, over))}
        rows = [[measures.get(key) for key in (*ACCURACIES, *AREAS)] for measures in by_seed.values()]
        if way == "zero_shot" and rows == rows[:1] * len(rows):
            rows, by_seed = rows[:1], {}
        if rows:
            columns.append([mean(column) for column in zip(*rows, strict=True)])
        seeds += by_seed
    if not columns:
        return ()
    averages = columns[0] if len(by_split(runs)) == 1 else map(flat_mean, zip(*columns, strict=True))
    base, new, accuracy, *areas = averages
    return name, base, new, harmonic_mean(base and base.value, new and new.value), accuracy, *areas, _seeds(seeds)


# ------------------------------------------------------------------------------------------------------ similarities
MOST_PAIRS = 10


def similarities(results: ResultSet) -> Iterator[Table]:
    """Yield the most disturbed pairs of names of each method, for the first seed that was run both ways.

    A change that all pairs share does not disturb their similarity structure, so the median change is subtracted first.
    """
    scenes = []
    for protocol in ("base-to-new", *TRANSFER):
        scenes += [(protocol, scene) for scene in grouped(results.of(protocol))]
    for protocol, scene in scenes:
        for method, sides in scene.methods.items():
            without, with_sar = ({run.seed: run["similarities"] for run in s if run["similarities"]} for s in sides)
            for seed in sorted(without.keys() & with_sar.keys() or without.keys() | with_sar.keys())[:1]:
                both = {method_name(method): without.get(seed), f"{method_name(method)} + SAR": with_sar.get(seed)}
                learned = {name: content for name, content in both.items() if content}
                first = next(iter(learned.values()))
                names, count, hand = first["names"], first["base"], first["handcrafted"]
                cosines = [hand, *(content["learned"] for content in learned.values() if content["names"] == names)]
                change = [after - before for before, after in zip(hand, cosines[1], strict=True)]
                median = statistics.median(change)
                pairs = list(itertools.combinations(range(len(names)), 2))
                body = []
                for k in sorted(range(len(pairs)), key=lambda k: -abs(change[k] - median))[:MOST_PAIRS]:
                    kinds = dict.fromkeys("base" if i < count else "new" for i in pairs[k])
                    values = (matrix[k] / 1000 for matrix in cosines)
                    body.append((*(names[i] for i in pairs[k]), ", ".join(kinds), *values))
                columns = (
                    *(Column(name, text=True) for name in ("name", "and", "classes")),
                    *(Column(name, digits=2) for name in ("hand-crafted", *learned)),
                )
                note = (
                    "Pairs are ranked after the median change over all pairs is subtracted, which does not disturb the "
                    "similarity structure."
                )
                title = f"Most disturbed pairs: {method_name(method)} on {scene}, seed {seed}; cosines"
                key = f"pairs-{slug(f'{protocol}-{scene.slug}-{method}')}"
                yield make_table(key, "similarity", title, columns, body, (note,), folded=True)


# ---------------------------------------------------------------------------------------------------------- few-shot
def series(results: ResultSet) -> list[list[Scene]]:
    """Return the few-shot scenes of each backbone and dataset, in the order of their shots."""
    by_dataset: dict[tuple[str, str], list[Scene]] = {}
    for scene in grouped(results.of("few-shot")):
        by_dataset.setdefault((scene.backbone, scene.dataset), []).append(scene)
    return [sorted(scenes, key=lambda scene: scene.shots or 10**9) for scenes in by_dataset.values()]


def few_shot(results: ResultSet) -> Iterator[Table]:
    """Yield a table for each dataset and backbone: accuracy over all classes by the number of images per class."""
    for scenes in series(results):
        by_shots = [scene.methods for scene in scenes]
        methods = {m: [sides.get(m, ([], [])) for sides in by_shots] for m in itertools.chain(*by_shots)}
        body: list[Sequence[Value]] = [
            ("zero-shot", *(zero_shot(scene.runs).base for scene in scenes)),
            ("linear probe", *(linear_probe(scene.runs).base for scene in scenes)),
        ]
        notes = [
            _spread([run for scene in scenes for run in scene.runs]),
            "Bold: the best of each column, the linear probe apart.",
            INTERVAL,
        ]
        notes += dict.fromkeys(note for sides in by_shots for note in _uneven(sides))
        apart = [1]
        for method, columns in methods.items():
            sides = [[pair[k] for pair in columns] for k in (0, 1)]
            halves = [interval(*({run.seed: run["metrics"]["base_accuracy"] for run in s} for s in p)) for p in columns]
            _add(body, apart, method, [[score(s).base for s in side] if any(side) else [] for side in sides], halves)
        heads = (METHOD, *(Column(shots_text(scene.shots), rivals=str(scene.shots)) for scene in scenes))
        dataset, backbone = scenes[0].dataset, scenes[0].backbone
        title = f"Accuracy by number of shots on {dataset}, {backbone}, all classes, in percent"
        key = slug(f"few-shot-{dataset}-{backbone}")
        yield make_table(key, "few-shot", title, heads, body, notes, apart=apart)


# ---------------------------------------------------------------------------------------------------- other datasets
TRANSFER = {"cross-dataset": "Cross-dataset transfer", "domain-generalisation": "Domain generalisation"}
"""Titles by protocol."""
TCP = (
    "TCP's class-aware tokens come from the training template here; its authors' code takes the target's, which tells "
    "the prompt of the domain."
)


def other_datasets(results: ResultSet) -> Iterator[Table]:
    """Yield a table for each protocol, source, number of shots and backbone."""
    for protocol in TRANSFER:
        yield from (_targets(protocol, scene) for scene in grouped(results.of(protocol)))


def _targets(protocol: str, scene: Scene) -> Table:
    targets = list(dict.fromkeys(name for run in scene.runs for name in run["targets"] or {}))

    def with_average(source: Mean | None, runs: Sequence[Result], key: str) -> Sequence[Mean | float | None]:
        """Return accuracies with the average over the targets, empty unless all of them were measured."""
        each = [mean((run["targets"] or {}).get(target, {}).get(key) for run in runs) for target in targets]
        average = mean(one.value for one in each if one) if all(each) else None
        return source, *each, average and average.value

    zero = with_average(zero_shot(scene.runs).base, scene.runs, "zero_shot")
    values = (accuracy.value if isinstance(accuracy, Mean) else accuracy for accuracy in zero)
    body: list[Sequence[Value]] = [("zero-shot", *values)]
    apart = list[int]()
    for method, sides in scene.methods.items():
        rows = [with_average(score(side).base, side, "accuracy") if side else () for side in sides]
        by_run = [{run.seed: with_average(score([run]).base, [run], "accuracy") for run in side} for side in sides]
        halves = [
            interval(*({seed: _value(row[k]) for seed, row in of_side.items()} for of_side in by_run))
            for k in range(len(targets) + 2)
        ]
        _add(body, apart, method, rows, halves)
    notes = [
        _spread(scene.runs),
        "The average is over the targets, the source left out. Bold: the best of each column.",
        INTERVAL,
        *([TCP] if any(run["config"]["method"] == "tcp" for run in scene.runs) else []),
        *_uneven(scene.methods),
    ]
    heads = ((scene.dataset, "source"), *((name, "targets") for name in (*targets, "average")))
    columns = (METHOD, *(Column(name, group, rivals=str(k)) for k, (name, group) in enumerate(heads, 1)))
    title = f"{TRANSFER[protocol]} from {scene}: accuracy in percent"
    return make_table(f"{protocol}-{scene.slug}", protocol, title, columns, body, notes, apart=apart)


# ------------------------------------------------------------------------------------------------------------ sweeps
MOST_SETTINGS = 8


def sweeps(results: ResultSet) -> Iterator[Table]:
    """Yield a table for each folder of sweeps, backbone and dataset: a row for each run, with its settings."""
    groups: dict[tuple[Path, str, str], list[Result]] = {}
    for run in results.of("custom"):
        groups.setdefault((run.folder, run.backbone, run.dataset), []).append(run)
    for (folder, backbone, dataset), every in groups.items():
        rows = {name: [run for run in every if run.name == name] for name in dict.fromkeys(run.name for run in every)}
        settings = _shown_settings([runs[0] for runs in rows.values()])
        body: list[Sequence[Value]] = [("zero-shot", *("" for _ in settings), *zero_shot(every).measures(), "", "")]
        for name, runs in rows.items():
            scored, words = score(runs), {"None": "", "True": "yes", "False": "no", "": '""'}
            shown = [words.get(str(value), str(value)) for value in map(runs[0].settings.get, settings)]
            body.append((name, *shown, *scored.measures(), _correlation(runs), _seeds(scored.seeds)))
            if (switched := score(runs, SWITCHED)).new:
                body.append((f"{name}, switched", *shown, *switched.measures(), "", _seeds(scored.seeds)))
        columns = (
            Column("run", text=True),
            *(Column(key, "settings", text=True) for key in settings),
            *(dataclasses.replace(column, group="accuracy") for column in MEASURES),
            Column("similarity structure", digits=2),
            SEEDS,
        )
        name = folder.as_posix() if folder != Path() else "sweep"
        notes = (
            _spread(every),
            "Settings: those in which the rows differ. Similarity structure: Spearman's correlation after training, of "
            "names that took no part. Bold: the best of each column.",
            SWITCH,
            JOINT_H,
            MODEL_H,
            *_zero_shot_varies(every),
        )
        title = f"{name}: {dataset}, {backbone}, accuracy in percent"
        yield make_table(slug(f"custom-{name}-{dataset}-{backbone}"), "custom", title, columns, body, notes)


def _shown_settings(rows: Sequence[Result]) -> list[str]:
    """Return the settings to show as columns: those in which rows differ, or none if there are too many.

    Settings of single methods are left out if rows of several methods are compared.
    """
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    differing = [key for key in keys if len({repr(row.settings[key]) for row in rows if key in row.settings}) > 1]
    if "method" in differing:
        methods = {str(row.settings["method"]) for row in rows}
        differing = [key for key in differing if key.partition(".")[0] not in methods]
    return differing if len(differing) <= MOST_SETTINGS else []


# ------------------------------------------------------------------------------------------------- published figures
NO_SAR = (
    "The paper that proposes SAR (arXiv 2502.11969) prints its own figures; they were not available, so none is shown."
)
ORIGINS = ("published", "ours", "ours + SAR")
BESIDE_COLUMNS = (
    METHOD,
    *(Column(name, group, digits=1 + (group == "published")) for group in ORIGINS for name in ("base", "new", "H")),
)


def beside_published(results: ResultSet) -> Iterator[Table]:
    """Yield a table for each dataset with published figures, after the averages where all eleven were run."""
    content = published.load()
    scenes = list(grouped(run for run in results.of("base-to-new") if run.comparable))
    scenes = [scene for scene in scenes if scene.shots == 16 and scene.dataset in content["datasets"]]
    for (backbone, _), of_backbone in by_setting(scenes).items():
        if len(of_backbone) == len(content["datasets"]):
            theirs = {
                method: (tuple(entry["scores"]), entry["source"]) for method, entry in content["averages"].items()
            }
            zero, where = over_datasets(zero_shot(scene.runs) for scene in of_backbone), "averages over 11 datasets"
            yield _beside(slug(f"average-{backbone}"), where, theirs, on_all(of_backbone), zero, of_backbone)
    for scene in scenes:
        figures = published.of_dataset(scene.dataset)
        theirs = {name: ((f.base, f.new, harmonic_mean(f.base, f.new) or 0.0), f.source) for name, f in figures.items()}
        ours = {method: tuple(score(s) if s else None for s in sides) for method, sides in scene.methods.items()}
        table = _beside(scene.slug, f"figures on {scene.dataset}", theirs, ours, zero_shot(scene.runs), [scene])
        yield dataclasses.replace(table, folded=len(scenes) > 2)


def _beside(
    key: str,
    where: str,
    theirs: Mapping[str, tuple[Any, str]],
    ours: Mapping[str, Sequence[Score | None]],
    zero: Score,
    scenes: Sequence[Scene],
) -> Table:
    names = {run["backbone"]["name"]: run["config"].get("pretrained") for scene in scenes for run in scene.runs}
    backbone = published.load()["backbone"]
    same = all(published.is_published_backbone(name, pretrained) for name, pretrained in names.items())
    last, heads = ("ours minus published", ("base", "new", "H")) if same else ("H above zero-shot", ORIGINS)
    state = f"Both under {backbone}." if same else (
        f"Another backbone: the published figures are of {backbone}, ours of {' and '.join(names)}. Accuracies "
        "cannot be compared; how far a method lies above its own zero-shot accuracy (last columns) can, with care."
    )  # fmt: skip
    sources = dict.fromkeys(source for _, source in theirs.values())
    notes = (state, f"Sources: {'; '.join(sources)}.", NO_SAR)
    title = f"Published {where} and ours, 16 shots, {scenes[0].backbone}, in percent"
    body = _beside_rows({method: figures for method, (figures, _) in theirs.items()}, ours, zero, same=same)
    columns = (*BESIDE_COLUMNS, *(Column(name, last) for name in heads))
    return make_table(f"published-{key}", "published", title, columns, body.values(), notes)


def _beside_rows(
    theirs: Mapping[str, Any], ours: Mapping[str, Sequence[Score | None]], zero: Score, *, same: bool
) -> dict[str, Sequence[Value]]:
    """Return rows by name: the published methods, then ours that were not published.

    Runs of ``dept`` (DePT on CoOp) have a row of their own if ``dept:coop`` was run too.

    Args:
        theirs: base, new and H by method.
        ours: scores without SAR and with it by method.
        zero: zero-shot.
        same: both have the same weights, so that accuracies are compared instead of H above zero-shot.
    """
    by_key: dict[str, list[str]] = {key: [] for key in theirs}
    for method in ours:
        by_key.setdefault(published.method_key(method), []).append(method)
    body: dict[str, Sequence[Value]] = {}
    for key, methods in by_key.items():
        figures = theirs.get(key, (None, None, None))
        for method in methods or [""]:
            name = published.label(key) if key in theirs and len(methods) < 2 else method_name(method)
            sides = (zero, None) if key == "clip" else ours.get(method, (None, None))
            scored = [side.measures()[:3] if side else (None, None, None) for side in sides]
            ends: Any = zip(scored[0], figures, strict=True)
            if not same:
                rivals = (None,) * 3 if key == "clip" else (theirs["clip"][2], zero.both, zero.both)
                ends = zip((figures[2], *(measures[2] for measures in scored)), rivals, strict=True)
            body[name] = name, *figures, *scored[0], *scored[1], *itertools.starmap(Difference, ends)
    return body


# ------------------------------------------------------------------------------------------------------------ set-up
def set_up(results: ResultSet) -> Iterator[Table]:
    """Yield zero-shot accuracy and the published one; too low means a mistake in template, names or pre-processing."""
    checks: dict[tuple[str, str, str, bool], Result] = {}
    for run in results.runs:
        if check := run["zero_shot_check"]:
            checks.setdefault((run.dataset, run.backbone, str(check.get("source")), bool(check.get("ok"))), run)
    body = []
    for (dataset, backbone, source, ok), run in checks.items():
        expected, measured = run["zero_shot_check"].get("expected") or {}, run["zero_shot"]
        values = [one.get(key) for one in (expected, measured) for key in ("base_accuracy", "new_accuracy")]
        verdict = Cell("as expected" if ok else "too low", bold=not ok, tone="" if ok else "down")
        body.append((dataset, backbone, *values, verdict, source))
    columns = (
        Column("dataset", text=True),
        Column("backbone", text=True),
        *(Column(name, group, digits=2) for group in ("known", "here") for name in ("base", "new")),
        Column("verdict", text=True),
        Column("source of the known figures", text=True),
    )
    yield make_table("set-up", "set-up", "Zero-shot accuracy and the published one, in percent", columns, body)
