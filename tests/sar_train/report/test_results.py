"""Which files count, loose and packed, and what tells runs apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.results import result, write

from sar_train.errors import DataError
from sar_train.report.results import Result, differing_settings, of, read

NEW, OLD = ({"version": "1", "digest": digest} for digest in ("new", "old"))


def run(path: str = "x.json", **values: Any) -> Result:
    return of(result(**values), Path(path))


def test_settings_are_flat_and_without_what_is_said_elsewhere() -> None:
    settings = run(name="coop+sar").settings
    assert (settings["epochs"], settings["coop.n_ctx"], settings["sar.weight"]) == (10, 4, 0.3)
    assert not {"seed", "schedule", "data_root"} & set(settings)
    assert differing_settings([run(), run(settings={"epochs": 20})]) == ["epochs"]
    assert differing_settings([run(), run(seed=2)]) == []


def test_without_sar_its_settings_mean_nothing() -> None:
    for name, count in (("coop", 1), ("coop+sar", 2)):
        runs = [run(name=name, settings={"novel_count": novel_count}) for novel_count in (400, 64)]
        assert len({one.identity() for one in runs}) == count


def test_values_of_a_run() -> None:
    assert run(settings={"pretrained": "/home/me/weights.pt"}).backbone == "sar-mini (weights.pt)"
    assert run().backbone == "sar-mini"
    assert run(code=None).code == "unknown"
    assert run()["no such key"] is None


@pytest.mark.parametrize(
    ("path", "dataset", "folder"),
    [
        ("ablation/caltech101/x.json", "caltech101", "ablation"),
        ("ablation/x.json", "caltech101", "ablation"),
        ("ablation/domains-photo/x.json", "domains/photo", "ablation"),
        ("ablation/data/x.json", "花", "ablation"),
        ("caltech101/x.json", "caltech101", "."),
        ("x.json", "caltech101", "."),
    ],
)
def test_the_folder_of_a_sweep_is_that_above_the_datasets(path: str, dataset: str, folder: str) -> None:
    assert run(path, dataset=dataset).folder.as_posix() == folder


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[1]", "not a result"),
        ('{"schema_version": 1}', "not a result"),
        (json.dumps(result() | {"schema_version": 2}), "schema version 2, expected 1"),
        *(
            (json.dumps(result() | changes), f"a result that lacks what a table needs: {key}")
            for key, changes in {
                "name": {"name": None},
                "seed": {"seed": None},
                "config.method": {"config": None},
                "metrics.base_accuracy": {"metrics": {"base_accuracy": float("nan"), "new_accuracy": 1.0}},
                "zero_shot.base_accuracy": {"zero_shot": None},
                "dataset.name": {"dataset": {}},
                "open": {"open": "text"},
                "timing": {"timing": [1]},
            }.items()
        ),
    ],
)
def test_what_is_no_result_is_skipped_with_one_line_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path, result())
    (tmp_path / "other.json").write_text(text)
    lines: list[str] = []
    results = read(tmp_path, tell=lines.append)
    assert [run.name for run in results.runs] == ["coop"]
    (line,) = lines
    assert line.startswith(f"Warning: {tmp_path / 'other.json'}: ")
    assert reason in line
    assert "\n" not in line
    assert results.skipped[0].startswith("other.json: ")


def test_results_lie_at_any_depth_and_records_hidden_folders_and_the_report_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "b" / "c", result("kgcoop"))
    write(tmp_path / "a", result("coop"))
    for name in ("run/record.json", ".features/x.json", "report/x.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    lines: list[str] = []
    assert [run.name for run in read(tmp_path, tell=lines.append, apart=tmp_path / "report").runs] == ["coop", "kgcoop"]
    assert lines == []


def test_files_that_are_all_something_else_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="no results.*; 1 JSON files there are something else"):
        read(tmp_path)


def test_of_one_run_the_newest_counts_by_the_time_in_the_file_or_else_of_the_file(tmp_path: Path) -> None:
    for finished in (None, "2026-11-2{}T10:00:00+00:00"):
        for number, (name, base, code, time) in enumerate(
            (("c", 70.0, NEW, 150), ("b", 75.0, OLD, 100), ("a", 70.0, NEW, 200)), 4
        ):
            content = result(base=base, code=code, finished=finished and finished.format(number))
            write(tmp_path, content, name=f"{name}.json", time=1000 - time if finished else time)
        results = read(tmp_path)
        assert [run.path.name for run in results.runs] == ["a.json"]
        assert (results.replaced, results.copies) == (("b.json",), ("c.json",))


def test_targets_of_one_prompt_are_put_together(tmp_path: Path) -> None:
    for name, targets in (
        ("a", {"dtd": {"accuracy": 1.0}, "pets": {"accuracy": 2.0}}),
        ("b", {"dtd": {"accuracy": 1.0}}),
        ("c", {"cars": {"accuracy": 3.0}}),
    ):
        write(tmp_path, result(protocol="cross-dataset", new=None, targets=targets), name=f"{name}.json")
    (run,) = read(tmp_path).runs
    assert {name: target["accuracy"] for name, target in run["targets"].items()} == {
        "dtd": 1.0, "pets": 2.0, "cars": 3.0,
    }  # fmt: skip


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
        (
            [result(dataset="dtd", settings={"template": "{} texture."}), result(dataset="eurosat")],
            ["coop", "coop"],
        ),
    ],
    ids=["settings", "machines", "of SAR", "datasets"],
)
def test_settings_that_differ_tell_rows_apart(tmp_path: Path, contents: list[dict[str, Any]], names: list[str]) -> None:
    for number, content in enumerate(contents):
        write(tmp_path, content, name=f"{number}.json", time=number)
    runs = read(tmp_path).runs
    assert [run.name for run in runs] == names
    assert all(run.partner == "coop" for run in runs if "+sar" in run.name)


def test_runs_of_one_name_in_two_sweeps_are_no_variants_of_one_another(tmp_path: Path) -> None:
    for folder, epochs in (("one", 10), ("two", 20)):
        for protocol, name in (("custom", "mine"), ("base-to-new", "coop")):
            content = result(name, protocol=protocol, settings={"epochs": epochs})
            write(tmp_path / folder, content, name=f"{name}.json")
        write(tmp_path / folder, result("same", protocol="custom"), name="same.json")
    names = [run.name for run in read(tmp_path).runs]
    assert names == ["coop (epochs=10)", "mine", "same", "coop (epochs=20)", "mine", "same"]
