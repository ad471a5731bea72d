"""Base-to-new tables against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.results import accuracies, result, write

from sar_train.report import base_new
from sar_train.report.results import read
from sar_train.report.table import Table


def tables(folder: Path) -> dict[str, Table]:
    return {table.title.partition(",")[0]: table for table in base_new.tables(read(folder))}


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
    found = tables(tmp_path)["Base to new on caltech101"]
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
    cells = tables(tmp_path)["Base to new on caltech101"].rows[-1]
    assert [(cell.text, cell.sd) for cell in cells if cell.tone][:2] == [("+1.5", "0.7"), ("-4.5", "2.1")]


def test_one_seed_has_no_deviation_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, result(base=84.0, new=48.0))
    found = tables(tmp_path)["Base to new on caltech101"]
    assert rows(found)["CoOp"][:4] == ["*84.0", "48.0", "*61.1", "1"]
    assert any("One seed" in note for note in found.notes)


def test_seeds_that_differ_between_the_sides_are_told(tmp_path: Path) -> None:
    both_ways(tmp_path)
    write(tmp_path, result(seed=3, base=91.0, new=49.0))
    found = tables(tmp_path)["Base to new on caltech101"]
    assert rows(found)["CoOp"][0] == "*87.0 ± 3.6"
    assert rows(found)["CoOp"][3] == "1–3"
    assert "CoOp: the two sides are of different seeds" in found.notes


def test_zero_shot_that_differs_between_runs_is_told(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result("kgcoop", zero_shot=(62.0, 58.0)))
    assert any("differ by up to 2.0" in note for note in tables(tmp_path)["Base to new on caltech101"].notes)


def test_averages_over_datasets(tmp_path: Path) -> None:
    both_ways(tmp_path)
    both_ways(tmp_path, "dtd", shift=-20.0)
    write(tmp_path, result("kgcoop", base=99.0, new=99.0))
    found = tables(tmp_path)["Base to new"]
    # base (85 + 65) / 2 = 75, new 49: H = 2 * 75 * 49 / 124 = 59.27; with SAR 74 and 52: 61.08
    assert rows(found)["CoOp"] == ["*75.0", "49.0", "59.3", "2", "74.0", "52.0", "*61.1", "2", "-1.0", "+3.0", "+1.8"]
    assert rows(found)["KgCoOp"][:4] == ["99.0", "99.0", "99.0", "1"]
    assert found.notes[1].startswith("Not on all 2 datasets, and never bold: KgCoOp (1).")


def test_an_average_over_other_settings_says_so(tmp_path: Path) -> None:
    write(tmp_path, result("kgcoop"))
    write(tmp_path, result("kgcoop", dataset="dtd", settings={"epochs": 1}))
    assert "KgCoOp: not the same epochs on all datasets" in tables(tmp_path)["Base to new"].notes


def test_photos_left_out_are_said_beside_the_figures(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", settings={"allow_missing": True}))
    write(tmp_path, result(dataset="eurosat") | {"dataset": {"name": "eurosat", "split_origin": "ours"}})
    write(tmp_path, result(dataset="products", settings={"allow_missing": True}))
    write(tmp_path, result(dataset="ucf101", settings={"skip_unreadable": True}))
    write(tmp_path, result(dataset="caltech101"))
    said = [note for table in base_new.tables(read(tmp_path)) for note in table.notes if "compared with papers" in note]
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
    found = rows(tables(tmp_path)["Base to new"])["CoOp"]
    assert (found[0], found[3], found[7], found[8]) == ("75.0", "2", "2", "-1.0")


def test_backbones_and_shots_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result(shots=4))
    write(tmp_path, result(backbone={"name": "ViT-B-16", "weights_digest": "x"}), name="vit.json")
    titles = [table.title for table in base_new.tables(read(tmp_path)) if table.key.startswith("base-to-new")]
    assert len(titles) == len(set(titles)) == 3


def test_relations(tmp_path: Path) -> None:
    both_ways(tmp_path)
    (found,) = [t for name, t in tables(tmp_path).items() if name.startswith("Relations")]
    assert rows(found) == {"CoOp": ["1.00", "0.50 ± 0.00", "*0.70 ± 0.00", "+0.20"]}
    assert "300 names" in found.notes[0]


def test_runs_without_relations_have_no_such_table(tmp_path: Path) -> None:
    write(tmp_path, result(relations=(None, None)))
    assert not any(name.startswith("Relations") for name in tables(tmp_path))


def test_other_ways_to_answer(tmp_path: Path) -> None:
    for seed, base in ((1, 70.0), (2, 72.0)):
        write(tmp_path, result("dept", seed=seed, other_metrics={"text-branch": accuracies(base, 60.0)}))
    (found,) = [t for name, t in tables(tmp_path).items() if name.startswith("Other ways")]
    assert rows(found) == {"DePT on CoOp": ["text branch", "71.0 ± 1.4", "60.0 ± 0.0", "65.0", "1, 2"]}


def test_zero_shot_is_averaged_where_seeds_draw_the_test_photos(tmp_path: Path) -> None:
    for seed, zero_shot in ((1, (60.0, 50.0)), (2, (62.0, 54.0))):
        write(tmp_path, result(seed=seed, zero_shot=zero_shot))
        write(tmp_path, result("coop+sar", seed=seed, zero_shot=zero_shot))
    found = base_new.zero_shot(read(tmp_path).runs)
    assert found.base is not None
    assert (found.base.value, found.seeds) == (61.0, (1, 2))
    same = base_new.zero_shot([run for run in read(tmp_path).runs if run.seed == 1])
    assert same.base is not None
    assert (same.base.value, same.base.sd, same.seeds) == (60.0, None, ())


@pytest.mark.parametrize("datasets", [("caltech101", "dtd"), ("caltech101", "dtd", "eurosat")])
def test_of_more_than_two_datasets_all_but_accuracies_are_folded(tmp_path: Path, datasets: tuple[str, ...]) -> None:
    for dataset in datasets:
        both_ways(tmp_path, dataset)
    found = base_new.tables(read(tmp_path))
    of_relations = [table for table in found if table.key.startswith("relations")]
    assert [table.folded for table in of_relations] == [len(datasets) > 2] * len(datasets)
    assert not any(table.folded for table in found if "accuracy" in table.title)


def test_sides_that_share_no_dataset_are_not_subtracted(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", base=80.0, new=60.0))
    write(tmp_path, result("coop+sar", dataset="eurosat", base=50.0, new=40.0))
    row = base_new.tables(read(tmp_path))[0].rows[1]
    assert [cell.text for cell in row] == ["CoOp", "80.0", "60.0", "68.6", "1", "50.0", "40.0", "44.4", "1", "", "", ""]


def test_an_average_over_other_seeds_says_so(tmp_path: Path) -> None:
    for dataset in ("dtd", "eurosat"):
        write(tmp_path, result("coop+sar", dataset=dataset))
        for seed in (1, 2):
            write(tmp_path, result(dataset=dataset, seed=seed))
            write(tmp_path, result("kgcoop", dataset=dataset, seed=seed))
            write(tmp_path, result("kgcoop+sar", dataset=dataset, seed=seed))
    notes = base_new.tables(read(tmp_path))[0].notes
    assert [note for note in notes if "seeds" in note] == ["CoOp: the two sides are of different seeds"]
