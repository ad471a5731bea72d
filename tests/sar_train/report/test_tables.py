"""All tables, against values computed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.results import accuracies, open_measures, result, sample, tables, write

from sar_train.report import published, summary
from sar_train.report.results import read
from sar_train.report.scores import zero_shot as zero_shot_score
from sar_train.report.table import Table
from sar_train.report.tables import TCP


def by_title(folder: Path) -> dict[str, Table]:
    return {table.title.partition(",")[0]: table for table in tables(folder, "base-to-new")}


def test_every_kind_of_result_has_its_tables_under_keys_of_their_own(tmp_path: Path) -> None:
    sample(tmp_path)
    found = tables(tmp_path)
    keys = [table.key for table in found]
    assert len(set(keys)) == len(keys)
    assert {table.section for table in found} == {
        "base-to-new", "open", "similarity", "published", "few-shot", "cross-dataset", "custom", "costs", "novel",
    }  # fmt: skip
    for table in found:
        heads = [column.flat for column in table.columns]
        assert len(set(heads)) == len(heads), table.key


def test_words_are_aligned_to_the_left_and_figures_to_the_right(tmp_path: Path) -> None:
    sample(tmp_path)
    for table in tables(tmp_path):
        for column, *cells in zip(table.columns, *table.rows, strict=True):
            figures = all(re.match(r"[-+−]?\d", cell.text) for cell in cells if cell.text)
            labels = column.name in ("seeds", "shots") or column.group == "settings"
            assert column.text == (labels or not figures), (table.key, column.flat)


def test_names_in_other_scripts_have_keys_of_their_own(tmp_path: Path) -> None:
    for dataset in ("猫", "花"):
        write(tmp_path, result(dataset=dataset))
        write(tmp_path, result(dataset=dataset, protocol="custom"))
    keys = [table.key for table in tables(tmp_path)]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() for key in keys)


# base to new
def rows(table: Table) -> dict[str, list[str]]:
    """Return the other cells as shown by the first cell, bold ones starred."""
    return {
        row[0].text: [("*" if c.bold else "") + c.text + (f" ± {c.sd}" if c.sd else "") for c in row[1:]]
        for row in table.rows
    }


def both_ways(folder: Path, dataset: str = "caltech101", *, shift: float = 0.0) -> None:
    for seed, base, new in ((1, 84.0, 48.0), (2, 86.0, 50.0)):
        write(folder, result(seed=seed, base=base + shift, new=new, dataset=dataset, relations=(1.0, 0.5)))
        with_sar = result(
            "coop+sar", seed=seed, base=base - 1 + shift, new=new + 3, dataset=dataset, relations=(1.0, 0.7)
        )
        write(folder, with_sar)


def test_one_dataset(tmp_path: Path) -> None:
    both_ways(tmp_path)
    found = by_title(tmp_path)["Base to new on caltech101"]
    # H: 2 * 85 * 49 / 134 = 62.16 and 2 * 84 * 52 / 136 = 64.24; zero-shot 2 * 60 * 58 / 118 = 58.98
    assert rows(found) == {
        "zero-shot": ["60.0", "*58.0", "59.0", "", "", "", "", "", "", "", ""],
        "linear probe (base only)": ["91.5 ± 0.7", "", "", "1, 2", "", "", "", "", "", "", ""],
        "CoOp": [
            "*85.0 ± 1.4", "49.0 ± 1.4", "62.2", "1, 2",
            "84.0 ± 1.4", "52.0 ± 1.4", "*64.2", "1, 2",
            "-1.0 ± 0.0", "+3.0 ± 0.0", "+2.1",
        ],
    }  # fmt: skip
    assert [c.tone for c in found.rows[-1][-3:]] == ["down", "up", "up"]


def test_a_difference_varies_as_it_does_at_the_same_seed(tmp_path: Path) -> None:
    for seed, base, new in ((1, 80.0, 40.0), (2, 90.0, 50.0)):
        write(tmp_path, result(seed=seed, base=base, new=new))
        write(tmp_path, result("coop+sar", seed=seed, base=base + seed, new=new - 3 * seed))
    cells = by_title(tmp_path)["Base to new on caltech101"].rows[-1]
    assert [(cell.text, cell.sd) for cell in cells if cell.tone][:2] == [("+1.5", "0.7"), ("-4.5", "2.1")]


def test_one_seed_has_no_deviation_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, result(base=84.0, new=48.0))
    found = by_title(tmp_path)["Base to new on caltech101"]
    assert rows(found)["CoOp"][:4] == ["*84.0", "48.0", "*61.1", "1"]
    assert any("One seed" in note for note in found.notes)


def test_seeds_that_differ_between_the_sides_are_told(tmp_path: Path) -> None:
    both_ways(tmp_path)
    write(tmp_path, result(seed=3, base=91.0, new=49.0))
    found = by_title(tmp_path)["Base to new on caltech101"]
    assert rows(found)["CoOp"][0] == "*87.0 ± 3.6"
    assert rows(found)["CoOp"][3] == "1–3"
    assert "CoOp: the two sides are of different seeds" in found.notes


def test_zero_shot_that_differs_between_runs_is_told(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result("kgcoop", zero_shot=(62.0, 58.0)))
    assert any("differ by up to 2.0" in note for note in by_title(tmp_path)["Base to new on caltech101"].notes)


def test_averages_over_datasets(tmp_path: Path) -> None:
    both_ways(tmp_path)
    both_ways(tmp_path, "dtd", shift=-20.0)
    write(tmp_path, result("kgcoop", base=99.0, new=99.0))
    found = by_title(tmp_path)["Base to new"]
    # base (85 + 65) / 2 = 75, new 49: H = 2 * 75 * 49 / 124 = 59.27; with SAR 74 and 52: 61.08
    assert rows(found)["CoOp"] == ["*75.0", "49.0", "59.3", "2", "74.0", "52.0", "*61.1", "2", "-1.0", "+3.0", "+1.8"]
    assert rows(found)["KgCoOp"][:4] == ["99.0", "99.0", "99.0", "1"]
    assert found.notes[1].startswith("Not on all 2 datasets, and never bold: KgCoOp (1).")


def test_an_average_over_other_settings_says_so(tmp_path: Path) -> None:
    write(tmp_path, result("kgcoop"))
    write(tmp_path, result("kgcoop", dataset="dtd", settings={"epochs": 1}))
    assert "KgCoOp: not the same epochs on all datasets" in by_title(tmp_path)["Base to new"].notes


def test_photos_left_out_are_said_beside_the_figures(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", settings={"allow_missing": True}))
    write(tmp_path, result(dataset="eurosat") | {"dataset": {"name": "eurosat", "split_origin": "ours"}})
    write(tmp_path, result(dataset="products", settings={"allow_missing": True}))
    write(tmp_path, result(dataset="ucf101", settings={"skip_unreadable": True}))
    write(tmp_path, result(dataset="caltech101"))
    said = [note for table in tables(tmp_path, "base-to-new") for note in table.notes if "compared with papers" in note]
    assert sorted(note.rpartition(": ")[2] for note in said) == [
        "dtd, eurosat and ucf101.",
        "dtd.",
        "eurosat.",
        "ucf101.",
    ]


def test_an_average_is_over_datasets_that_both_sides_have(tmp_path: Path) -> None:
    both_ways(tmp_path)
    both_ways(tmp_path, "dtd", shift=-20.0)
    write(tmp_path, result(dataset="eurosat", base=10.0, new=10.0))
    found = rows(by_title(tmp_path)["Base to new"])["CoOp"]
    assert (found[0], found[3], found[7], found[8]) == ("75.0", "2", "2", "-1.0")


def test_backbones_and_shots_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result(shots=4))
    write(tmp_path, result(backbone={"name": "ViT-B-16", "weights_digest": "x"}), name="vit.json")
    titles = [table.title for table in tables(tmp_path, "base-to-new") if table.key.startswith("base-to-new")]
    assert len(titles) == len(set(titles)) == 3


def test_relations(tmp_path: Path) -> None:
    both_ways(tmp_path)
    (found,) = [t for name, t in by_title(tmp_path).items() if name.startswith("Relations")]
    assert rows(found) == {"CoOp": ["1.00", "0.50 ± 0.00", "*0.70 ± 0.00", "+0.20"]}
    assert "300 names" in found.notes[0]


def test_runs_without_relations_have_no_such_table(tmp_path: Path) -> None:
    write(tmp_path, result(relations=(None, None)))
    assert not any(name.startswith("Relations") for name in by_title(tmp_path))


def test_other_ways_to_answer(tmp_path: Path) -> None:
    for seed, base in ((1, 70.0), (2, 72.0)):
        write(tmp_path, result("dept", seed=seed, other_metrics={"text-branch": accuracies(base, 60.0)}))
    (found,) = [t for name, t in by_title(tmp_path).items() if name.startswith("Other ways")]
    assert rows(found) == {"DePT": ["text branch", "71.0 ± 1.4", "60.0 ± 0.0", "65.0", "1, 2"]}


def test_zero_shot_is_averaged_where_seeds_draw_the_test_photos(tmp_path: Path) -> None:
    for seed, zero_shot in ((1, (60.0, 50.0)), (2, (62.0, 54.0))):
        write(tmp_path, result(seed=seed, zero_shot=zero_shot))
        write(tmp_path, result("coop+sar", seed=seed, zero_shot=zero_shot))
    found = zero_shot_score(read(tmp_path).runs)
    assert found.base is not None
    assert (found.base.value, found.seeds) == (61.0, (1, 2))
    same = zero_shot_score([run for run in read(tmp_path).runs if run.seed == 1])
    assert same.base is not None
    assert (same.base.value, same.base.sd, same.seeds) == (60.0, None, ())


@pytest.mark.parametrize("datasets", [("caltech101", "dtd"), ("caltech101", "dtd", "eurosat")])
def test_of_more_than_two_datasets_all_but_accuracies_are_folded(tmp_path: Path, datasets: tuple[str, ...]) -> None:
    for dataset in datasets:
        both_ways(tmp_path, dataset)
    found = tables(tmp_path, "base-to-new")
    of_relations = [table for table in found if table.key.startswith("relations")]
    assert [table.folded for table in of_relations] == [len(datasets) > 2] * len(datasets)
    assert not any(table.folded for table in found if "accuracy" in table.title)


def test_sides_that_share_no_dataset_are_not_subtracted(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", base=80.0, new=60.0))
    write(tmp_path, result("coop+sar", dataset="eurosat", base=50.0, new=40.0))
    row = tables(tmp_path, "base-to-new")[0].rows[1]
    assert [cell.text for cell in row] == ["CoOp", "80.0", "60.0", "68.6", "1", "50.0", "40.0", "44.4", "1", "", "", ""]


def test_an_average_over_other_seeds_says_so(tmp_path: Path) -> None:
    for dataset in ("dtd", "eurosat"):
        write(tmp_path, result("coop+sar", dataset=dataset))
        for seed in (1, 2):
            write(tmp_path, result(dataset=dataset, seed=seed))
            write(tmp_path, result("kgcoop", dataset=dataset, seed=seed))
            write(tmp_path, result("kgcoop+sar", dataset=dataset, seed=seed))
    notes = tables(tmp_path, "base-to-new")[0].notes
    assert [note for note in notes if "seeds" in note] == ["CoOp: the two sides are of different seeds"]


def cells(table: Table) -> list[list[str]]:
    return [[("*" if c.bold else "") + c.text + (f" ± {c.sd}" if c.sd else "") for c in row] for row in table.rows]


def both_ways_open(folder: Path, dataset: str = "caltech101") -> None:
    for seed, shift in ((1, -1.0), (2, 1.0)):
        write(folder, result(seed=seed, dataset=dataset, open_=(70.0 + shift, 20.0 + shift)))
        write(folder, result("coop+sar", seed=seed, dataset=dataset, open_=(60.0 + shift, 60.0)))


def test_every_measure_has_its_column_over_images_and_over_classes(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    images, classes = tables(tmp_path, "open")
    heads = ["method", "open base", "open new", "open H", "open accuracy", "AUROC", "OpenworldAUC", "AUSUC", "seeds"]
    assert [column.flat for column in images.columns] == heads
    # H: 2 * 50 * 40 / 90 = 44.4, 2 * 70 * 20 / 90 = 31.1; OpenworldAUC in the sample is base times new
    assert cells(images) == [
        ["zero-shot", "50.0", "40.0", "44.4", "45.0", "*0.900", "0.200", "*0.600", ""],
        ["CoOp", "*70.0 ± 1.4", "20.0 ± 1.4", "31.1", "45.0 ± 1.4", "*0.900 ± 0.000", "0.140 ± 0.013", "*0.600 ± 0.000",
         "1, 2"],
        ["CoOp + SAR", "60.0 ± 1.4", "*60.0 ± 0.0", "*60.0", "*60.0 ± 0.7", "*0.900 ± 0.000", "*0.360 ± 0.008",
         "*0.600 ± 0.000", "1, 2"],
    ]  # fmt: skip
    assert cells(classes)[0][:3] == ["zero-shot", "51.0", "41.0"]
    assert (images.folded, classes.folded) == (False, True)


def test_other_ways_to_answer_have_cells(tmp_path: Path) -> None:
    run = result("dept", open_=(70.0, 30.0), other_metrics={"text-branch": {"base_accuracy": 75.0}})
    run["open"]["other_metrics"] = {"text-branch": open_measures(65.0, 35.0)}
    write(tmp_path, run)
    images, _ = tables(tmp_path, "open")
    assert [row[:3] for row in cells(images)][1:] == [
        ["DePT", "*70.0", "30.0"],
        ["DePT, text branch", "65.0", "35.0"],
    ]


def test_open_h_stands_beside_base_new_and_h(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    both_ways_open(tmp_path, "dtd")
    average, first, *_ = tables(tmp_path, "base-to-new")
    for table in (average, first):
        assert [column.name for column in table.columns[1:5]] == ["base", "new", "H", "open H"]
        assert [row[4] for row in cells(table) if row[0] != "linear probe (base only)"] == ["44.4", "31.1"]
        assert cells(table)[-1][9] == "*60.0"
        assert cells(table)[-1][-1] == "+28.9"
        assert any(note.startswith("Open H") for note in table.notes)


def test_results_made_before_are_read_and_have_no_such_columns(tmp_path: Path) -> None:
    old = result()
    del old["open"]
    write(tmp_path, old)
    write(tmp_path, result("w", protocol="custom") | {"open": None})
    results = read(tmp_path)
    assert tables(tmp_path, "open") == []
    for table in tables(tmp_path, "base-to-new", "custom"):
        assert not any("open" in column.flat for column in table.columns)
    assert not any("In one ranking" in line for _, lines in summary.claims(results) for line in lines)


def test_a_side_of_which_a_run_was_not_measured_has_no_open_mean(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    write(tmp_path, result(seed=3))
    table = tables(tmp_path, "base-to-new")[0]
    assert (cells(table)[-1][4], cells(table)[-1][9], cells(table)[-1][-1]) == ("", "*60.0", "")


def test_sweeps_show_it_too(tmp_path: Path) -> None:
    write(tmp_path, result("w", protocol="custom", open_=(70.0, 20.0)))
    (table,) = tables(tmp_path, "custom")
    shown = dict(zip([column.name for column in table.columns], cells(table)[-1], strict=True))
    assert shown["open H"] == "31.1"


def test_the_summary_says_what_sar_did(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    ((_, lines),) = summary.claims(read(tmp_path))
    said = "In one ranking over base and new classes, SAR raised the harmonic mean for 1 of 1 method (CoOp +28.9)."
    assert said in lines


FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None)}


def test_by_number_of_shots(tmp_path: Path) -> None:
    for shots, base in ((16, 70.0), (2, 60.0)):
        for seed in (1, 2):
            write(tmp_path, result(shots=shots, seed=seed, base=base + seed, **FEW))
        write(tmp_path, result("coop+sar", shots=shots, seed=1, base=base + 3, **FEW))
    (found,) = tables(tmp_path, "few-shot")
    assert [column.name for column in found.columns] == ["method", "2 shots", "16 shots"]
    shown = {row[0].text: [c.text + (f" ± {c.sd}" if c.sd else "") for c in row[1:]] for row in found.rows}
    assert shown == {
        "zero-shot": ["54.0", "54.0"],
        "linear probe": ["91.5 ± 0.7", "91.5 ± 0.7"],
        "CoOp": ["61.5 ± 0.7", "71.5 ± 0.7"],
        "CoOp + SAR": ["63.0", "73.0"],
        "difference": ["+1.5", "+1.5"],
    }
    assert [row[0].text for row in found.rows if row[1].bold] == ["CoOp + SAR"]


def test_missing_seeds_are_told(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    write(tmp_path, result(shots=1, seed=2, **FEW))
    write(tmp_path, result(shots=4, **FEW))
    (found,) = tables(tmp_path, "few-shot")
    assert "CoOp, seeds at 1 shot: 1, 2; 4 shots: 1" in found.notes


def test_a_number_of_shots_that_one_side_lacks_is_empty(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    write(tmp_path, result("coop+sar", shots=0, **FEW))
    (found,) = tables(tmp_path, "few-shot")
    assert [column.name for column in found.columns[1:]] == ["1 shot", "all photos"]
    assert [[c.text for c in row] for row in found.rows[2:]] == [["CoOp", "80.0", ""], ["CoOp + SAR", "", "80.0"]]


def test_seeds_that_differ_at_several_shots_are_told_once(tmp_path: Path) -> None:
    for shots in (1, 4):
        write(tmp_path, result("coop+sar", shots=shots, **FEW))
        for seed in (1, 2):
            write(tmp_path, result(shots=shots, seed=seed, **FEW))
    (found,) = tables(tmp_path, "few-shot")
    assert found.notes.count("CoOp: the two sides are of different seeds") == 1


TRANSFER = ("cross-dataset", "domain-generalisation")


def judged(**accuracies: float) -> dict[str, Any]:
    return {
        name: {"accuracy": value, "zero_shot": 50.0, "classes": 3, "photos": 9} for name, value in accuracies.items()
    }


@pytest.mark.parametrize("protocol", ["cross-dataset", "domain-generalisation"])
def test_the_average_is_over_targets_and_seeds(tmp_path: Path, protocol: str) -> None:
    common: dict[str, Any] = {"protocol": protocol, "new": None, "dataset": "imagenet"}
    write(tmp_path, result(seed=1, base=70.0, targets=judged(dtd=40.0, pets=80.0), **common))
    write(tmp_path, result(seed=2, base=72.0, targets=judged(dtd=44.0, pets=82.0), **common))
    write(tmp_path, result("coop+sar", base=70.0, targets=judged(dtd=45.0, pets=85.0), **common))
    found, theirs = tables(tmp_path, *TRANSFER)
    assert [column.name for column in found.columns] == ["method", "imagenet", "dtd", "pets", "average"]
    assert [[c.text for c in row] for row in found.rows] == [
        ["zero-shot", "60.0", "50.0", "50.0", "50.0"],
        ["CoOp", "71.0", "42.0", "81.0", "61.5"],
        ["CoOp + SAR", "70.0", "45.0", "85.0", "65.0"],
        ["difference", "-1.0", "+3.0", "+4.0", "+3.5"],
    ]
    assert found.rows[1][2].sd == "2.8"
    assert [[cell.bold for cell in row] for row in found.rows] == [
        [False, False, True, False, False],
        [False, True, False, False, False],
        [False, False, False, True, True],
        [False] * 5,
    ]
    assert found.rows[0][2].sd == ""
    assert theirs.rows[0][0].text == "CoOp"
    assert theirs.rows[0][2].text == {"cross-dataset": "63.88", "domain-generalisation": "59.28"}[protocol]


def test_an_average_with_a_target_missing_is_left_out(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None}
    write(tmp_path, result(targets=judged(dtd=40.0, pets=80.0), **common))
    write(tmp_path, result("kgcoop", targets=judged(dtd=40.0), **common))
    (found,) = tables(tmp_path, *TRANSFER)  # the published figures are of prompts from ImageNet
    rows = {row[0].text: [c.text for c in row] for row in found.rows}
    assert rows["CoOp"][-1] == "60.0"
    assert rows["KgCoOp"][-2:] == ["", ""]


def test_what_is_particular_about_tcp_is_told(tmp_path: Path) -> None:
    write(tmp_path, result("tcp", protocol="cross-dataset", new=None, targets=judged(dtd=40.0)))
    assert TCP in tables(tmp_path, *TRANSFER)[0].notes


def test_nothing_without_such_runs(tmp_path: Path) -> None:
    write(tmp_path, result())
    assert tables(tmp_path, *TRANSFER) == []


def test_a_difference_is_never_the_best_of_its_column(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None}
    for name, value in (("coop", 0.0), ("coop+sar", 60.0)):
        write(tmp_path, result(name, targets=judged(dtd=value), **common))
    rows = tables(tmp_path, *TRANSFER)[0].rows
    assert [(row[0].text, row[2].text) for row in rows][2:] == [("CoOp + SAR", "60.0"), ("difference", "+60.0")]
    assert [row[2].bold for row in rows] == [False, False, True, False]


@pytest.mark.parametrize(("seeds", "said"), [((1, 2), True), ((1,), False)])
def test_seeds_of_targets_that_differ_are_told(tmp_path: Path, seeds: tuple[int, ...], said: bool) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None, "targets": judged(dtd=40.0)}
    write(tmp_path, result("coop+sar", **common))
    for seed in seeds:
        write(tmp_path, result(seed=seed, **common))
    (found,) = tables(tmp_path, *TRANSFER)
    assert ("CoOp: the two sides are of different seeds" in found.notes) == said


def test_zero_shot_on_the_source_counts_every_seed_once(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None, "targets": judged(dtd=40.0)}
    for name in ("coop", "kgcoop", "tcp"):
        write(tmp_path, result(name, zero_shot=(60.0, None), **common))
    write(tmp_path, result(seed=2, zero_shot=(70.0, None), **common))
    (found,) = tables(tmp_path, *TRANSFER)
    assert (found.rows[0][0].text, found.rows[0][1].value) == ("zero-shot", 65.0)


def test_settings_in_which_rows_differ_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "ablation", result("none", protocol="custom", base=90.0, new=50.0))
    for weight, new in ((0.1, 60.0), (1.0, 64.0)):
        for seed in (1, 2):
            one = result("w+sar", protocol="custom", seed=seed, new=new + seed, settings={"weight": weight})
            write(tmp_path / "ablation", one | {"name": f"w{weight}"})
    (found,) = tables(tmp_path, "custom")
    assert [c.name for c in found.columns] == [
        "run",
        "method",
        "sar",
        "sar.weight",
        "base",
        "new",
        "H",
        "relations",
        "seeds",
    ]
    assert [[c.text for c in row] for row in found.rows][1:] == [
        ["none", "none", "no", "", "90.0", "50.0", "64.3", "0.50", "1"],
        ["w0.1", "w", "yes", "0.1", "80.0", "61.5", "69.5", "0.50", "1, 2"],
        ["w1.0", "w", "yes", "1.0", "80.0", "65.5", "72.0", "0.50", "1, 2"],
    ]
    assert found.title.startswith("ablation: caltech101")
    bold = [
        (row[0].text, column.name)
        for row in found.rows
        for cell, column in zip(row, found.columns, strict=True)
        if cell.bold
    ]
    assert bold == [("none", "base"), ("w1.0", "new"), ("w1.0", "H")]


@pytest.mark.parametrize(("count", "shown"), [(8, 8), (9, 0)])
def test_more_than_eight_settings_are_none(tmp_path: Path, count: int, shown: int) -> None:
    for name in ("a", "b"):
        many = {f"option{i}": f"{name}{i}" for i in range(count)}
        write(tmp_path, result(name, protocol="custom", settings={**many, "method": "coop"}))
    (table,) = tables(tmp_path, "custom")
    settings = [f"option{i}" for i in range(shown)]
    assert [c.name for c in table.columns] == ["run", *settings, "base", "new", "H", "relations", "seeds"]


def test_folders_are_tables_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, result(protocol="custom"))
    assert [table.key for table in tables(tmp_path, "custom")] == [
        "custom-a-caltech101-sar-mini",
        "custom-b-caltech101-sar-mini",
    ]


def test_zero_shot_that_differs_between_runs_of_a_sweep_is_told(tmp_path: Path) -> None:
    write(tmp_path, result("a", protocol="custom", zero_shot=(60.0, 50.0)))
    assert len(tables(tmp_path, "custom")[0].notes) == 2
    write(tmp_path, result("b", protocol="custom", zero_shot=(80.0, 70.0), settings={"base_classes": "deal:2"}))
    assert "differ by up to 20.0" in tables(tmp_path, "custom")[0].notes[2]


CLIP = {
    "backbone": {"name": "ViT-B-16", "weights_digest": "x"},
    "settings": {"pretrained": "openai", "backbone": "ViT-B-16"},
}


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, result(base=80.0, new=60.0))
    write(tmp_path, result("coop+sar", base=80.0, new=62.0))
    average, found = tables(tmp_path, "published")
    row = {r[0].text: [c.text for c in r[1:]] for r in found.rows}["CoOp"]
    # H: ours 68.57 and 69.86, zero-shot 58.98; published 93.45 and 95.40
    assert row == ["98.00", "89.31", "93.45", "80.0", "60.0", "68.6", "80.0", "62.0", "69.9", "-1.9", "+9.6", "+10.9"]
    assert found.notes[0].startswith("Another backbone: the published figures are of ViT-B/16")
    assert "cannot be compared" in " ".join(found.notes[0].split())
    assert not any(c.group == "ours" for c in average.columns)
    assert "10 of the 11 datasets were not run" in average.notes[1]


def test_methods_that_were_not_published_stand_below(tmp_path: Path) -> None:
    write(tmp_path, result("mine"))
    found = tables(tmp_path, "published")[-1]
    assert [cell.text for cell in found.rows[-1]][:5] == ["mine", "", "", "", "80.0"]


def test_all_eleven_datasets_under_the_same_backbone(tmp_path: Path) -> None:
    for place, dataset in enumerate(published.load()["datasets"]):
        write(tmp_path, result(dataset=dataset, base=70.0 + place, new=60.0, **CLIP))  # type: ignore[arg-type]
    average = tables(tmp_path, "published")[0]
    row = {r[0].text: [c.text for c in r] for r in average.rows}["CoOp"]
    assert row[1:7] == ["82.69", "63.22", "71.66", "75.0", "60.0", "66.7"]
    assert "multimodal-prompt-learning" in row[-1]
    assert average.notes[1] == "Both under ViT-B/16 (OpenAI's weights)."


def test_nothing_is_said_of_other_data_or_shots(tmp_path: Path) -> None:
    write(tmp_path, result(shots=4))
    assert tables(tmp_path, "published") == []
    write(tmp_path, result(dataset="mine"))
    assert [table.key for table in tables(tmp_path, "published")] == ["published-average-sar-mini"]


def test_dept_and_dept_on_coop_have_rows_of_their_own_everywhere(tmp_path: Path) -> None:
    for name in ("dept", "dept+sar", "dept:coop", "dept:coop+sar"):
        write(tmp_path, result(name, base=80.0 + len(name), open_=(70.0, 40.0)))
        write(tmp_path, result(name, protocol="few-shot", new=None, zero_shot=(54.0, None)))
    found = tables(tmp_path, "base-to-new", "open", "few-shot", "published", "costs")
    for table in (table for table in found if "average" not in table.key):
        rows = [row[0].text for row in table.rows if row[0].text != "difference"]
        protocols = 1 + (table.key == "costs")
        assert all(rows.count(name) <= protocols for name in rows), table.key
        assert {"DePT", "DePT on CoOp"} <= set(rows), table.key
    assert {table.section for table in found} == {"base-to-new", "open", "few-shot", "published", "costs"}
