"""Which files count, loose and packed, and what tells runs apart."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from support.results import pack, result, write

from sar_train.errors import DataError
from sar_train.report.results import ARCHIVE, Result, differing_settings, packed_runs, read

NEW, OLD = ({"version": "1", "digest": digest} for digest in ("new", "old"))


def one(folder: Path, path: str = "x.json", **values: Any) -> Result:
    write(folder, result(**values), name=path)
    (run,) = read(folder).runs
    return run


def test_values_of_a_run(tmp_path: Path) -> None:
    settings = one(tmp_path, name="coop+sar").settings
    assert (settings["epochs"], settings["coop.n_ctx"], settings["sar.weight"]) == (10, 4, 0.3)
    assert not {"seed", "schedule", "data_root"} & set(settings)
    other = one(tmp_path, settings={"pretrained": "/home/me/weights.pt", "novel_count": 3}, code=None)
    assert (other.backbone, other.code, other["no such key"]) == ("sar-mini (weights.pt)", "unknown", None)
    assert "novel_count" not in other.settings  # means nothing without SAR
    assert differing_settings([other, one(tmp_path, settings={"epochs": 20})])[0] == "pretrained"


@pytest.mark.parametrize(
    ("path", "dataset", "folder"),
    [
        ("ablation/caltech101/x.json", "caltech101", "ablation"),
        ("ablation/x.json", "caltech101", "ablation"),
        ("ablation/domains-photo/x.json", "domains/photo", "ablation"),
        ("x.json", "caltech101", "."),
    ],
)
def test_the_folder_of_a_sweep_is_that_above_the_datasets(tmp_path: Path, path: str, dataset: str, folder: str) -> None:
    assert one(tmp_path, path, dataset=dataset).folder.as_posix() == folder


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a result"),
        ("[1]", "not a result"),
        ('{"schema_version": 1}', "not a result"),
        (json.dumps(result() | {"schema_version": 2}), "schema version 2, expected 1"),
        (json.dumps(result() | {"config": None}), "lacks what a table needs"),
        (json.dumps(result() | {"zero_shot": None}), "lacks what a table needs"),
    ],
)
def test_what_is_no_result_is_skipped_with_one_line_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match="no results.*; 1 JSON files there are something else"):
        read(tmp_path)
    write(tmp_path, result())
    lines: list[str] = []
    results = read(tmp_path, tell=lines.append)
    assert [run.name for run in results.runs] == ["coop"]
    (line,) = lines
    assert line.startswith(f"Warning: {tmp_path / 'other.json'}: ")
    assert reason in line
    assert results.left_out[0].startswith("other.json: ")


def test_results_are_read_at_any_depth_except_records_hidden_folders_and_the_report(tmp_path: Path) -> None:
    write(tmp_path / "b" / "c", result("kgcoop"))
    write(tmp_path / "a", result("coop"))
    for name in ("run/record.json", ".features/x.json", "report/x.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    results = read(tmp_path, apart=tmp_path / "report")
    assert ([run.name for run in results.runs], results.left_out) == (["coop", "kgcoop"], ())


def test_of_runs_of_the_same_settings_and_seed_the_newest_counts(tmp_path: Path) -> None:
    for name, code, day in (("c", NEW, 4), ("b", OLD, 5), ("a", NEW, 6)):
        write(tmp_path, result(code=code, finished=f"2026-11-2{day}T10:00:00+00:00"), name=f"{name}.json")
    results = read(tmp_path)
    assert [run.path.name for run in results.runs] == ["a.json"]
    assert [line.partition(":")[0] for line in results.left_out] == ["b.json", "c.json"]


def test_targets_of_one_prompt_are_put_together(tmp_path: Path) -> None:
    for name, targets in (("a", {"dtd": 1.0, "pets": 2.0}), ("b", {"dtd": 1.0}), ("c", {"cars": 3.0})):
        accuracies = {target: {"accuracy": value} for target, value in targets.items()}
        write(tmp_path, result(protocol="cross-dataset", new=None, targets=accuracies), name=f"{name}.json")
    (run,) = read(tmp_path).runs
    assert {name: target["accuracy"] for name, target in run["targets"].items()} == {"dtd": 1, "pets": 2, "cars": 3}


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        (
            [result(), result(seed=2), result(settings={"epochs": 20})],
            ["coop (epochs=10)", "coop (epochs=10)", "coop (epochs=20)"],
        ),
        ([result(settings={"data_root": machine, "device": machine}) for machine in ("here", "there")], ["coop"]),
        (
            [result(), result("coop+sar"), result("coop+sar", settings={"weight": 1.0})],
            ["coop", "coop+sar (sar.weight=0.3)", "coop+sar (sar.weight=1.0)"],
        ),
        ([result(dataset="dtd", settings={"template": "{} texture."}), result(dataset="eurosat")], ["coop", "coop"]),
    ],
    ids=["settings", "machines", "of SAR", "datasets"],
)
def test_settings_that_differ_tell_rows_apart(tmp_path: Path, contents: list[dict[str, Any]], names: list[str]) -> None:
    for number, content in enumerate(contents):
        write(tmp_path, content, name=f"{number}.json")
    runs = read(tmp_path).runs
    assert [run.name for run in runs] == names
    assert all(run.partner == "coop" for run in runs if "+sar" in run.name)


def test_runs_of_one_name_in_two_sweeps_are_no_variants_of_one_another(tmp_path: Path) -> None:
    for folder, epochs in (("one", 10), ("two", 20)):
        write(tmp_path / folder, result("mine", protocol="custom", settings={"epochs": epochs}))
    assert [run.name for run in read(tmp_path).runs] == ["mine", "mine"]


def test_packed_results_are_read_and_a_loose_one_wins(tmp_path: Path) -> None:
    for seed in (1, 2):
        path = write(tmp_path / "caltech101", result(seed=seed))
        path.with_suffix(".toml").write_text(f"seeds = [{seed}]\n")
    before = read(tmp_path)
    pack(tmp_path)
    assert read(tmp_path) == before
    assert [run.toml for _, run in packed_runs(tmp_path)] == ["seeds = [1]\n", "seeds = [2]\n"]
    write(tmp_path / "caltech101", result(seed=1, base=50.0))
    assert [run["metrics"]["base_accuracy"] for run in read(tmp_path).runs] == [50.0, 80.0]


@pytest.mark.parametrize("content", [b"", b"plain", lzma.compress(b"{}\n")[:-4], lzma.compress(b"[1]\n")])
def test_a_damaged_packed_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match=f"{ARCHIVE}: damaged"):
        read(tmp_path)
