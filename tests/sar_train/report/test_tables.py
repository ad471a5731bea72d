"""Tables of every kind, against values computed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.results import accuracies, blocks, open_measures, result, sample, similarity, tables, write

from sar_train.report import published
from sar_train.report.formats import Table
from sar_train.report.results import read
from sar_train.report.scores import grouped
from sar_train.report.tables import ABOVE, TCP

FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None)}


def cells(table: Table) -> list[list[str]]:
    """Return the cells as shown, bold ones starred."""
    return [[("*" if c.bold else "") + c.text + (f" ± {c.sd}" if c.sd else "") for c in row] for row in table.rows]


def rows(table: Table) -> dict[str, list[str]]:
    """Return the other cells by the first of a row."""
    return {first.lstrip("*"): others for first, *others in cells(table)}


def notes(folder: Path, *sections: str) -> list[str]:
    return [note for table in tables(folder, *sections) for note in table.notes]


def both_ways(folder: Path, dataset: str = "caltech101", *, shift: float = 0.0) -> None:
    for seed, base, new in ((1, 84.0, 48.0), (2, 86.0, 50.0)):
        write(folder, result(seed=seed, base=base + shift, new=new, dataset=dataset, relations=(1.0, 0.5)))
        of_sar: dict[str, Any] = {"base": base - 1 + shift, "new": new + 3, "relations": (1.0, 0.7)}
        write(folder, result("coop+sar", seed=seed, dataset=dataset, **of_sar))


def test_every_kind_of_result_has_its_tables_under_keys_of_their_own(tmp_path: Path) -> None:
    sample(tmp_path)
    write(tmp_path, result(dataset="猫"))
    write(tmp_path, result(dataset="花"))
    every = tables(tmp_path)
    keys = [table.key for table in every]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() for key in keys)
    assert {table.section for table in every} == {
        "base-to-new", "open", "similarity", "published", "few-shot", "cross-dataset", "custom",
    }  # fmt: skip
    for table in every:
        heads = [column.flat for column in table.columns]
        assert len(set(heads)) == len(heads), table.key
        for column, *column_cells in zip(table.columns, *table.rows, strict=True):
            figures = all(re.match(r"[-+−]?\d", cell.text) for cell in column_cells if cell.text)
            labels = column.name in ("seeds", "datasets") or column.group == "settings"
            assert column.text == (labels or not figures), (table.key, column.flat)


def test_base_to_new_on_one_dataset(tmp_path: Path) -> None:
    both_ways(tmp_path)
    table, relations, *_ = tables(tmp_path, "base-to-new")
    # H: 2 * 85 * 49 / 134 = 62.16 and 2 * 84 * 52 / 136 = 64.24; zero-shot 2 * 60 * 58 / 118 = 58.98
    assert rows(table) == {
        "zero-shot": ["60.0", "*58.0", "59.0", ""],
        "linear probe (base only)": ["91.5 ± 0.7", "", "", "1, 2"],
        "CoOp": ["*85.0 ± 1.4", "49.0 ± 1.4", "62.2", "1, 2"],
        "CoOp + SAR": ["84.0 ± 1.4", "52.0 ± 1.4", "64.2", "1, 2"],
        "difference": ["-1.0 ± 0.0", "+3.0 ± 0.0", "+2.1 ± 0.2", ""],
        # switched: 2 * 85 * 58 / 143 = 68.95 and 2 * 84 * 58 / 142 = 68.62
        "CoOp, switched": ["*85.0 ± 1.4", "*58.0 ± 0.0", "*69.0", "1, 2"],
        "CoOp + SAR, switched": ["84.0 ± 1.4", "*58.0 ± 0.0", "68.6", "1, 2"],
        "SAR above the better of plain and switched": ["", "", "-0.3 ± 0.1", ""],
    }
    assert [cell.tone for cell in table.rows[-2][1:4]] == ["down", "up", "up"]
    assert rows(relations) == {"CoOp": ["1.00", "0.50 ± 0.00", "*0.70 ± 0.00", "+0.20"]}
    assert "300 names" in relations.notes[0]


def test_a_difference_has_the_interval_of_pairs_of_the_same_seed(tmp_path: Path) -> None:
    """Student's t with one degree of freedom is 12.706; it is multiplied by the deviation over the root of two."""
    for seed, base, new in ((1, 80.0, 40.0), (2, 90.0, 50.0)):
        write(tmp_path, result(seed=seed, base=base, new=new))
        write(tmp_path, result("coop+sar", seed=seed, base=base + seed, new=new - 3 * seed))
    assert rows(tables(tmp_path, "base-to-new")[0])["difference"][:2] == ["+1.5 ± 6.4", "-4.5 ± 19.1"]


@pytest.mark.parametrize("protocol", ["few-shot", "cross-dataset"])
def test_differences_of_other_protocols_have_intervals_too(tmp_path: Path, protocol: str) -> None:
    """Differences of 1 and 3: their standard error is 1."""
    for seed, gain in ((1, 1.0), (2, 3.0)):
        common: dict[str, Any] = {"protocol": protocol, "new": None, "seed": seed}
        write(tmp_path, result(base=70.0, targets=judged(dtd=40.0), **common))
        write(tmp_path, result("coop+sar", base=70.0 + gain, targets=judged(dtd=40.0 + gain), **common))
    first, *_ = tables(tmp_path, protocol)
    cells = rows(first)["difference"]
    assert cells == ["+2.0 ± 12.7"] * len(cells)


def test_one_seed_has_no_deviation_and_no_relations_no_table(tmp_path: Path) -> None:
    write(tmp_path, result(base=84.0, new=48.0, relations=(None, None)))
    (table,) = tables(tmp_path, "base-to-new")
    assert rows(table)["CoOp"][:4] == ["*84.0", "48.0", "61.1", "1"]
    assert table.notes[0].startswith("One seed")


@pytest.mark.parametrize("protocol", ["base-to-new", "few-shot", "cross-dataset"])
@pytest.mark.parametrize(("seeds", "uneven"), [((1, 2), True), ((1,), False)])
def test_sides_of_different_seeds_are_told_once(
    tmp_path: Path, protocol: str, seeds: tuple[int, ...], *, uneven: bool
) -> None:
    for shots in (1, 4) if protocol == "few-shot" else (16,):
        common: dict[str, Any] = {"protocol": protocol, "shots": shots, "targets": judged(dtd=40.0)}
        write(tmp_path, result("coop+sar", **common))
        for seed in seeds:
            write(tmp_path, result(seed=seed, **common))
    assert notes(tmp_path, protocol).count("CoOp: the two sides are of different seeds") == uneven


@pytest.mark.parametrize("protocol", ["base-to-new", "custom"])
@pytest.mark.parametrize(("origin", "seeds"), [({}, (1,)), ({"split_origin": "ours"}, (1, 2))])
def test_zero_shot_that_differs_between_runs_is_told_but_not_where_each_seed_draws_its_test_photos(
    tmp_path: Path, protocol: str, origin: dict[str, str], seeds: tuple[int, ...]
) -> None:
    own = result()["dataset"] | origin
    for seed in seeds:
        write(tmp_path, result(seed=seed, zero_shot=(60.0 + seed, 58.0), protocol=protocol) | {"dataset": own})
    assert not any("differ by" in note for note in notes(tmp_path, protocol))
    write(tmp_path, result("kgcoop", zero_shot=(63.0, 58.0), protocol=protocol) | {"dataset": own})
    assert any("differ by up to 2.0" in note for note in notes(tmp_path, protocol))


@pytest.mark.parametrize("protocol", ["base-to-new", "custom"])
def test_zero_shot_of_several_deals_is_the_mean_over_them(tmp_path: Path, protocol: str) -> None:
    for deal, accuracy in ((1, 40.0), (2, 70.0)):
        for seed in (1, 2, 3)[: 4 - deal]:  # the second deal has fewer seeds, and counts as much
            deal_result = result(
                protocol=protocol,
                seed=seed,
                base=accuracy + seed,
                zero_shot=(accuracy, accuracy + 4.0),
                linear_probe={"base_accuracy": accuracy + 20.0},
                open_=(50.0, 40.0),
                settings={"base_classes": f"deal:{deal}"},
            )
            of_zero_shot = deal_result["open"]["zero_shot"]["images"]
            of_zero_shot.update(base_accuracy=accuracy - 10.0, new_accuracy=accuracy - 20.0)
            write(tmp_path, deal_result, name=f"{deal}-{seed}.json")
    first, *others = tables(tmp_path, protocol, "open")
    columns = [column.name for column in first.columns]
    zero_shot = dict(zip(columns[::-1], ["zero-shot", *rows(first)["zero-shot"]][::-1], strict=True))
    assert (zero_shot["base"], zero_shot["new"], zero_shot["H"]) == ("55.0", "59.0", "56.9")
    assert zero_shot["joint H"] == "39.4"  # of 45 and 35
    assert rows(first)["CoOp (base_classes=deal:1)" if protocol == "base-to-new" else "coop (base_classes=deal:1)"]
    assert any("the 2 splits of the classes" in note for note in first.notes)
    assert not any("differ by" in note for note in first.notes)
    if protocol == "base-to-new":
        assert rows(first)["linear probe (base only)"][0] == "75.0"
        in_one_ranking = next(table for table in others if table.key.startswith("open-caltech101"))
        assert rows(in_one_ranking)["zero-shot"][:3] == ["45.0", "35.0", "39.4"]


def test_averages_are_of_methods_that_were_run_on_all_datasets(tmp_path: Path) -> None:
    both_ways(tmp_path)
    both_ways(tmp_path, "dtd", shift=-20.0)
    write(tmp_path, result("kgcoop", base=99.0, new=99.0, settings={"epochs": 1}))
    write(tmp_path, result("kgcoop", dataset="dtd", base=99.0, new=99.0))
    write(tmp_path, result("kgcoop+sar", dataset="dtd", base=70.0, new=50.0))
    write(tmp_path, result("tcp", dataset="dtd", base=70.0, new=50.0))
    average, *_ = tables(tmp_path, "base-to-new")
    # base (85 + 65) / 2 = 75, new 49: H = 2 * 75 * 49 / 124 = 59.27; with SAR 74 and 52: 61.08
    assert rows(average) == {
        "zero-shot": ["60.0", "58.0", "59.0", "2"],
        "CoOp": ["75.0", "49.0", "59.3", "2"],
        "CoOp + SAR": ["74.0", "52.0", "61.1", "2"],
        "difference": ["-1.0", "+3.0", "+1.8", ""],
        "KgCoOp": ["*99.0", "*99.0", "*99.0", "2"],
        "CoOp, switched": ["75.0", "58.0", "65.4", "2"],
        "CoOp + SAR, switched": ["74.0", "58.0", "65.0", "2"],
        "SAR above the better of plain and switched": ["", "", "-0.4", ""],
        "KgCoOp, switched": ["*99.0", "58.0", "73.1", "2"],
    }
    assert average.notes[1] == "Not on all 2 datasets, and left out: KgCoOp + SAR, TCP."
    assert "KgCoOp: not the same epochs on all datasets" in average.notes


def test_photos_left_out_are_said_beside_the_figures(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", settings={"allow_missing": True}))
    write(tmp_path, result(dataset="eurosat") | {"dataset": {"name": "eurosat", "split_origin": "ours"}})
    write(tmp_path, result(dataset="products", settings={"allow_missing": True}))  # nothing is published of it
    write(tmp_path, result(dataset="ucf101", settings={"skip_unreadable": True}))
    write(tmp_path, result())
    warned = [note for note in notes(tmp_path, "base-to-new") if "compared with papers" in note]
    named = sorted(note.rpartition(": ")[2] for note in warned)
    assert named == ["dtd, eurosat and ucf101.", "dtd.", "eurosat.", "ucf101."]


def test_other_ways_to_answer(tmp_path: Path) -> None:
    for seed, base in ((1, 70.0), (2, 72.0)):
        run = result("dept", seed=seed, open_=(70.0, 30.0), other_metrics={"text-branch": accuracies(base, 60.0)})
        run["open"]["other_metrics"] = {"text-branch": open_measures(65.0, 35.0)}
        write(tmp_path, run)
    other = next(table for table in tables(tmp_path, "base-to-new") if table.title.startswith("Other scoring modes"))
    assert rows(other) == {"DePT": ["text branch", "71.0 ± 1.4", "60.0 ± 0.0", "65.0", "1, 2"]}
    assert [row[:2] for row in cells(tables(tmp_path, "open")[0])][1:] == [
        ["DePT", "*70.0 ± 0.0"],
        ["DePT, text branch", "65.0 ± 0.0"],
    ]


# ------------------------------------------------------------------------------------------------------- joint accuracy
def both_ways_open(folder: Path, dataset: str = "caltech101") -> None:
    for seed, shift in ((1, -1.0), (2, 1.0)):
        write(folder, result(seed=seed, dataset=dataset, open_=(70.0 + shift, 20.0 + shift)))
        write(folder, result("coop+sar", seed=seed, dataset=dataset, open_=(60.0 + shift, 60.0)))


def test_every_measure_of_one_ranking_has_its_column_over_images_and_over_classes(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    images, classes = tables(tmp_path, "open")
    heads = [
        "method",
        "joint base",
        "joint new",
        "joint H",
        "joint accuracy",
        "AUROC",
        "OpenworldAUC",
        "AUSUC",
        "seeds",
    ]
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


def test_the_better_of_plain_and_switched_is_taken_on_either_side_and_by_measure(tmp_path: Path) -> None:
    """Switched figures of the class model stand in their own rows, that of the hand-crafted prompt in zero-shot's."""
    ways = ("switched", "statistics", "statistics-switched", "statistics-handcrafted")
    for name, base, new, joint in (
        ("coop", 80.0, 50.0, ((70.0, 30.0), (90.0, 40.0), (90.0, 45.0), (90.0, 50.0))),
        ("coop+sar", 78.0, 62.0, ((68.0, 32.0), (90.0, 55.0), (90.0, 50.0), (90.0, 50.0))),
    ):
        content = result(name, base=base, new=new, open_=(60.0, 40.0))
        content["open"]["other_metrics"] = {w: open_measures(*pair) for w, pair in zip(ways, joint, strict=True)}
        content["other_metrics"] = {way: accuracies(base, new) for way in ways}
        write(tmp_path, content)
    table = rows(tables(tmp_path, "base-to-new")[0])
    assert [table[name][4] for name in ("zero-shot", "CoOp", "CoOp, switched")] == ["64.3", "55.4", "60.0"]
    assert [table[name][4] for name in ("CoOp + SAR", "CoOp + SAR, switched")] == ["*68.3", "64.3"]
    # H: plain 80 / 62 against 80 / 58 by the switch; joint H: 60 / 40 both; class model: 68.3 against 60.0
    assert table[ABOVE] == ["", "", "+1.8", "0.0", "+8.3", ""]


def test_open_h_stands_beside_base_new_and_h_where_every_run_has_it(tmp_path: Path) -> None:
    both_ways_open(tmp_path)
    both_ways_open(tmp_path, "dtd")
    for table in tables(tmp_path, "base-to-new")[:2]:
        assert [column.name for column in table.columns[1:5]] == ["base", "new", "H", "joint H"]
        assert (rows(table)["zero-shot"][3], rows(table)["CoOp"][3]) == ("44.4", "31.1")
        assert (rows(table)["CoOp + SAR"][3], rows(table)["difference"][3][:5]) == ("*60.0", "+28.9")
        assert any(note.startswith("Joint H") for note in table.notes)
    write(tmp_path, result(seed=3))
    by_name = rows(tables(tmp_path, "base-to-new")[1])
    assert [by_name[name][3] for name in ("CoOp", "CoOp + SAR", "difference")] == ["", "*60.0", ""]


# ---------------------------------------------------------------------------------------------------------- few-shot
def test_by_number_of_shots(tmp_path: Path) -> None:
    for shots, base in ((16, 70.0), (2, 60.0)):
        for seed in (1, 2):
            write(tmp_path, result(shots=shots, seed=seed, base=base + seed, **FEW))
        write(tmp_path, result("coop+sar", shots=shots, seed=1, base=base + 3, **FEW))
    write(tmp_path, result("tcp", shots=0, **FEW))
    (table,) = tables(tmp_path, "few-shot")
    assert [column.name for column in table.columns] == ["method", "2 shots", "16 shots", "all photos"]
    assert rows(table) == {
        "zero-shot": ["54.0", "54.0", "54.0"],
        "linear probe": ["91.5 ± 0.7", "91.5 ± 0.7", "91.0"],
        "CoOp": ["61.5 ± 0.7", "71.5 ± 0.7", ""],
        "CoOp + SAR": ["*63.0", "*73.0", ""],
        "difference": ["+1.5", "+1.5", ""],
        "TCP": ["", "", "*80.0"],
    }


# ---------------------------------------------------------------------------------------------------- other datasets
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
    write(tmp_path, result("tcp", base=60.0, targets=judged(dtd=40.0), **common))
    (table,) = tables(tmp_path, protocol)
    assert [column.name for column in table.columns] == ["method", "imagenet", "dtd", "pets", "average"]
    assert cells(table) == [
        ["zero-shot", "60.0", "*50.0", "50.0", "50.0"],
        ["CoOp", "*71.0 ± 1.4", "42.0 ± 2.8", "81.0 ± 1.4", "61.5"],
        ["CoOp + SAR", "70.0", "45.0", "*85.0", "*65.0"],
        ["difference", "-1.0", "+3.0", "+4.0", "+3.5"],  # never the best of its column
        ["TCP", "60.0", "40.0", "", ""],
    ]
    assert TCP in table.notes


# ------------------------------------------------------------------------------------------------------------ sweeps
def test_settings_in_which_rows_differ_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "ablation", result("none", protocol="custom", base=90.0, new=50.0))
    for weight, new in ((0.1, 60.0), (1.0, 64.0)):
        for seed in (1, 2):
            one = result("w+sar", protocol="custom", seed=seed, new=new + seed, settings={"weight": weight})
            write(tmp_path / "ablation", one | {"name": f"w{weight}"})
    write(tmp_path / "other", result(protocol="custom", open_=(70.0, 20.0)))
    table, other = tables(tmp_path, "custom")
    heads = ["run", "method", "sar", "sar.weight", "base", "new", "H", "similarity structure", "seeds"]
    assert [column.name for column in table.columns] == heads
    assert cells(table)[1::2] == [
        ["none", "none", "no", "", "*90.0", "50.0", "64.3", "0.50", "1"],
        ["w0.1", "w", "yes", "0.1", "80.0 ± 0.0", "61.5 ± 0.7", "69.5", "0.50 ± 0.00", "1, 2"],
        ["w1.0", "w", "yes", "1.0", "80.0 ± 0.0", "*65.5 ± 0.7", "*72.0", "0.50 ± 0.00", "1, 2"],
    ]
    assert cells(table)[2] == ["none, switched", "none", "no", "", "*90.0", "58.0", "70.5", "", "1"]
    assert table.title.startswith("ablation: caltech101")
    assert other.key == "custom-other-caltech101-sar-mini"
    assert dict(zip([column.name for column in other.columns], cells(other)[-2], strict=True))["joint H"] == "31.1"


@pytest.mark.parametrize(("count", "shown"), [(8, 8), (9, 0)])
def test_more_than_eight_settings_are_none(tmp_path: Path, count: int, shown: int) -> None:
    for name in ("a", "b"):
        many = {f"option{i}": f"{name}{i}" for i in range(count)}
        write(tmp_path, result(name, protocol="custom", settings={**many, "method": "coop"}))
    (table,) = tables(tmp_path, "custom")
    settings = [f"option{i}" for i in range(shown)]
    assert [c.name for c in table.columns] == ["run", *settings, "base", "new", "H", "similarity structure", "seeds"]


# ------------------------------------------------------------------------------------------------- published figures
def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, result(base=80.0, new=60.0))
    write(tmp_path, result("coop+sar", base=80.0, new=62.0))
    write(tmp_path, result("mine"))
    write(tmp_path, result("tcp", shots=4))
    (table,) = tables(tmp_path, "published")
    # H: ours 68.57 and 69.86, zero-shot 58.98; published 93.45 and 95.40
    assert rows(table)["CoOp"] == [
        "98.00", "89.31", "93.45", "80.0", "60.0", "68.6", "80.0", "62.0", "69.9", "-1.9", "+9.6", "+10.9",
    ]  # fmt: skip
    assert rows(table)["TCP"][3] == ""
    assert cells(table)[-1][:5] == ["mine", "", "", "", "80.0"]
    assert table.notes[0].startswith("Another backbone: the published figures are of ViT-B/16")


def test_all_eleven_datasets_under_the_same_backbone(tmp_path: Path) -> None:
    clip: dict[str, Any] = {
        "backbone": {"name": "ViT-B-16", "weights_digest": "x"},
        "settings": {"pretrained": "openai", "backbone": "ViT-B-16"},
    }
    for rank, dataset in enumerate(published.load()["datasets"]):
        write(tmp_path, result(dataset=dataset, base=70.0 + rank, new=60.0, **clip))
    average = tables(tmp_path, "published")[0]
    row = rows(average)["CoOp"]
    assert row[:6] == ["82.69", "63.22", "71.66", "75.0", "60.0", "66.7"]
    assert row[-3:] == ["-7.7", "-3.2", "-5.0"]  # ours minus published
    assert average.notes[0] == "Both under ViT-B/16 (OpenAI's weights)."
    assert "multimodal-prompt-learning" in average.notes[1]


def test_dept_and_dept_on_coop_have_rows_of_their_own_everywhere(tmp_path: Path) -> None:
    for name in ("dept", "dept+sar", "dept:coop", "dept:coop+sar"):
        write(tmp_path, result(name, base=80.0 + len(name), open_=(70.0, 40.0)))
        write(tmp_path, result(name, **FEW))
    sections = ("base-to-new", "open", "few-shot", "published")
    for table in (table for table in tables(tmp_path, *sections) if "average" not in table.key):
        names = [row[0].text for row in table.rows if row[0].text not in ("difference", ABOVE)]
        assert len(set(names)) == len(names), table.key
        assert {"DePT", "DePT on CoOp"} <= set(names), table.key


# ------------------------------------------------------------------------------------------------------------ set-up
def test_set_up_checks(tmp_path: Path) -> None:
    for dataset, base, source, ok in (("caltech101", 60.0, "here", True), ("dtd", 70.0, "there", False)):
        check = {"expected": accuracies(base, 58.0), "source": source, "difference": base - 60, "ok": ok}
        for seed in (1, 2):
            write(tmp_path, result(seed=seed, dataset=dataset, zero_shot_check=check))
    (table,) = tables(tmp_path, "set-up")
    assert cells(table) == [
        ["caltech101", "sar-mini", "60.00", "58.00", "60.00", "58.00", "as expected", "here"],
        ["dtd", "sar-mini", "70.00", "58.00", "60.00", "58.00", "*too low", "there"],
    ]
    assert [row[6].tone for row in table.rows] == ["", "down"]


# ---------------------------------------------------------------------------------------------------- scenes, pairs
def test_zero_shot_is_averaged_where_seeds_draw_the_test_photos(tmp_path: Path) -> None:
    for seed, known in ((1, (60.0, 50.0)), (2, (62.0, 54.0))):
        for name in ("coop", "coop+sar"):
            write(tmp_path, result(name, seed=seed, zero_shot=known))
    assert rows(tables(tmp_path, "base-to-new")[0])["zero-shot"][:2] == ["61.0 ± 1.4", "52.0 ± 2.8"]


def test_methods_of_which_a_side_is_missing_or_has_several_settings(tmp_path: Path) -> None:
    of_sar = result("coop+sar", settings={"weight": 1.0})
    for number, content in enumerate([result(), result("coop+sar"), of_sar, result("kgcoop"), result("tcp+sar")]):
        write(tmp_path, content, name=f"{number}.json")
    (scene,) = grouped(read(tmp_path).runs)
    assert {name: (len(without), len(with_sar)) for name, (without, with_sar) in scene.methods.items()} == {
        "coop (sar.weight=0.3)": (1, 1),
        "coop (sar.weight=1.0)": (1, 1),
        "kgcoop": (1, 0),
        "tcp": (0, 1),
    }


def test_the_pairs_that_moved_most_come_first_for_the_first_seed_of_both_sides(tmp_path: Path) -> None:
    names, hand = [f"n{i}" for i in range(9)], blocks([3, 3, 3])

    def moved(*changes: tuple[int, int, float], shift: float = 0.0) -> dict[str, Any]:
        cosines = hand + shift
        for i, j, change in changes:
            cosines[i, j] += change
        return similarity(names, 6, hand, cosines)

    without = moved((0, 8, 0.6), (1, 2, -0.8), (6, 7, 0.05), shift=-0.3)  # a change of all pairs disturbs nothing
    write(tmp_path, result("coop", seed=1, similarities=moved()))
    write(tmp_path, result("coop", seed=2, similarities=without))
    write(tmp_path, result("coop+sar", seed=2, similarities=moved((0, 8, 0.2))))
    write(tmp_path, result("tcp"))
    (table,) = tables(tmp_path, "similarity")
    assert [[cell.text for cell in row] for row in table.rows][:3] == [
        ["n1", "n2", "base", "0.90", "-0.20", "0.90"],
        ["n0", "n8", "base, new", "0.10", "0.40", "0.30"],
        ["n6", "n7", "new", "0.90", "0.65", "0.90"],
    ]
    assert [column.name for column in table.columns][3:] == ["hand-crafted", "CoOp", "CoOp + SAR"]
    assert "seed 2" in table.title
