"""Which files count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.results import result, write

from sar_train.errors import DataError
from sar_train.report.results import Result, comparable, differing_settings, read


def of(**values: object) -> Result:
    return Result(Path("x.json"), 0.0, result(**values))  # type: ignore[arg-type]


def test_settings_are_flat_and_without_what_is_said_elsewhere() -> None:
    found = of(name="coop+sar").settings
    assert found["epochs"] == 10
    assert found["coop.n_ctx"] == 4
    assert found["sar.weight"] == 0.3
    assert not {"seed", "schedule", "data_root"} & set(found)


def test_without_sar_its_settings_mean_nothing() -> None:
    assert of(settings={"novel_count": 400}).identity() == of(settings={"novel_count": 64}).identity()
    with_sar = (of(name="coop+sar", settings={"novel_count": count}).identity() for count in (400, 64))
    assert len(set(with_sar)) == 2


def test_a_weights_file_is_named_without_its_folder() -> None:
    assert of(settings={"pretrained": "/home/me/weights.pt"}).backbone == "sar-mini (weights.pt)"
    assert of().backbone == "sar-mini"


def test_the_folder_of_a_sweep_is_that_above_the_datasets() -> None:
    def at(path: str, **values: object) -> str:
        return Result(Path(path), 0.0, result(**values)).folder.as_posix()  # type: ignore[arg-type]

    assert at("ablation/caltech101/x.json") == at("ablation/x.json") == "ablation"
    assert at("ablation/domains-photo/x.json", dataset="domains/photo") == "ablation"
    assert at("ablation/data/x.json", dataset="花") == "ablation"
    assert at("caltech101/x.json") == at("x.json") == "."


def test_differing_settings() -> None:
    assert differing_settings([of(), of(settings={"epochs": 20})]) == ["epochs"]
    assert differing_settings([of(), of(seed=2)]) == []


def test_missing_parts_are_none() -> None:
    assert of(code=None).code == "unknown"
    assert of()["no such key"] is None


def test_results_are_found_at_any_depth_in_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b" / "c", result("kgcoop"))
    write(tmp_path / "a", result("coop"))
    assert [run.name for run in read(tmp_path).runs] == ["coop", "kgcoop"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "not a result"),
        ('{"schema_version": 1}', "not a result"),
        (json.dumps(result() | {"schema_version": 2}), "schema version 2, expected 1"),
        (json.dumps(result() | {"metrics": {"base_accuracy": float("nan")}}), "lacks what a table needs: metrics"),
        ("[" * 100_000, "not readable as JSON"),
    ],
    ids=["broken", "list", "record", "schema", "nan", "deep"],
)
def test_what_is_no_result_is_skipped_with_one_line_that_names_it(tmp_path: Path, text: str, why: str) -> None:
    write(tmp_path, result())
    (tmp_path / "other.json").write_text(text)
    told: list[str] = []
    results = read(tmp_path, tell=told.append)
    assert len(results.runs) == 1
    (line,) = told
    assert str(tmp_path / "other.json") in line
    assert why in line
    assert "\n" not in line
    assert results.skipped[0].startswith("other.json: ")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        *((key, None, key) for key in ("name", "seed", "config.method", "metrics.base_accuracy", "dataset.name")),
        *((key, None, f"{key}.base_accuracy") for key in ("metrics", "zero_shot")),
        *((key, "text", key) for key in ("open", "timing", "versions", "settings")),
        ("config", None, "config.method"),
        ("config.schedule", "text", "schedule"),
        ("settings.coop", "text", "settings"),
        ("novel.overlap", "some", "novel"),
        ("targets", {"dtd": None}, "targets"),
        ("targets", {"dtd": {"accuracy": "high"}}, "targets"),
        ("similarities", {"names": ["a", "b"]}, "similarities"),
    ],
)
def test_a_result_is_skipped_with_the_key_that_it_lacks(tmp_path: Path, key: str, value: object, named: str) -> None:
    *tables, last = key.split(".")
    content = table = result("coop+sar")
    for name in tables:
        table = table[name]
    table[last] = value
    write(tmp_path, result(), name="sound.json")
    (tmp_path / "flawed.json").write_text(json.dumps(content))
    told: list[str] = []
    assert [run.name for run in read(tmp_path, tell=told.append).runs] == ["coop"]
    assert [line.endswith(f"lacks what a table needs: {named}; skipped") for line in told] == [True], told


@pytest.mark.parametrize(
    ("count", "pairs", "base", "fits"),
    [
        *((2, 1, 0, True), (3, 3, 3, True), (4, 6, 1, True), (1, 0, 1, True)),
        *((2, 1, -1, False), (3, 3, 4, False), (4, 5, 1, False), (4, 7, 1, False), (3, 6, 1, False)),
    ],
)
def test_similarities_are_of_every_pair_of_names(tmp_path: Path, count: int, pairs: int, base: int, fits: bool) -> None:
    write(tmp_path, result())
    for key in ("handcrafted", "learned"):
        found = {"names": ["x"] * count, "base": base, "handcrafted": [1] * (count * (count - 1) // 2)}
        found |= {"learned": found["handcrafted"], key: [1] * pairs}
        write(tmp_path, result("tcp", similarities=found), name="other.json")
        assert len(read(tmp_path).runs) == 1 + fits


def test_records_of_kept_runs_hidden_folders_and_the_report_itself_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, result())
    for place in ("run/record.json", ".features/x.json", "report/x.json"):
        path = tmp_path / place
        path.parent.mkdir()
        path.write_text("{}")
    told: list[str] = []
    assert len(read(tmp_path, tell=told.append, apart=tmp_path / "report").runs) == 1
    assert told == []


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no results"):
        read(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="1 JSON"):
        read(tmp_path)


def test_of_one_run_made_by_several_codes_the_newest_counts(tmp_path: Path) -> None:
    write(tmp_path, result(base=70.0, code={"version": "1", "digest": "new"}), name="a.json", time=200)
    write(tmp_path, result(base=75.0, code={"version": "1", "digest": "old"}), name="b.json", time=100)
    write(tmp_path, result(base=70.0, code={"version": "1", "digest": "new"}), name="c.json", time=150)
    results = read(tmp_path)
    assert [run["metrics"]["base_accuracy"] for run in results.runs] == [70.0]
    assert results.replaced == ("b.json",)
    assert results.copies == ("c.json",)


def test_the_time_in_the_file_counts_before_that_of_the_file(tmp_path: Path) -> None:
    new = result(base=70.0, code={"version": "1", "digest": "new"}, finished="2026-11-25T10:00:00+00:00")
    old = result(base=75.0, code={"version": "1", "digest": "old"}, finished="2026-11-24T10:00:00+00:00")
    write(tmp_path, new, name="a.json", time=100)
    write(tmp_path, old, name="b.json", time=200)
    assert [run["metrics"]["base_accuracy"] for run in read(tmp_path).runs] == [70.0]


def test_targets_of_one_prompt_are_put_together(tmp_path: Path) -> None:
    for name, targets in (
        ("a", {"dtd": {"accuracy": 1.0}, "pets": {"accuracy": 2.0}}),
        ("b", {"dtd": {"accuracy": 1.0}}),
    ):
        write(tmp_path, result(protocol="cross-dataset", new=None, targets=targets), name=f"{name}.json")
    write(tmp_path, result(protocol="cross-dataset", new=None, targets={"cars": {"accuracy": 3.0}}), name="c.json")
    (run,) = read(tmp_path).runs
    assert {name: found["accuracy"] for name, found in run["targets"].items()} == {"dtd": 1.0, "pets": 2.0, "cars": 3.0}


def test_other_settings_or_another_seed_make_another_run(tmp_path: Path) -> None:
    for place, content in enumerate((result(), result(seed=2), result(settings={"epochs": 20}))):
        write(tmp_path, content, name=f"{place}.json")
    results = read(tmp_path)
    assert [(run.name, run.seed) for run in results.runs] == [
        ("coop (epochs=10)", 1),
        ("coop (epochs=10)", 2),
        ("coop (epochs=20)", 1),
    ]
    assert results.replaced == results.copies == ()


def test_where_files_lie_makes_no_other_run(tmp_path: Path) -> None:
    write(tmp_path, result(settings={"data_root": "here", "device": "cpu"}), name="a.json", time=100)
    write(tmp_path, result(settings={"data_root": "there", "device": "cuda"}), name="b.json", time=200)
    results = read(tmp_path)
    assert [run.path.name for run in results.runs] == ["b.json"]


def test_settings_of_sar_tell_its_rows_apart_and_leave_the_partner_alone(tmp_path: Path) -> None:
    for place, content in enumerate((result(), result("coop+sar"), result("coop+sar", settings={"weight": 1.0}))):
        write(tmp_path, content, name=f"{place}.json")
    runs = read(tmp_path).runs
    assert [run.name for run in runs] == ["coop", "coop+sar (sar.weight=0.3)", "coop+sar (sar.weight=1.0)"]
    assert {run.partner for run in runs} == {"coop"}


def test_runs_of_one_name_in_two_sweeps_are_no_variants_of_one_another(tmp_path: Path) -> None:
    for place, epochs in (("one", 10), ("two", 20)):
        for protocol, name in (("custom", "mine"), ("base-to-new", "coop")):
            settings = {"epochs": epochs}
            write(tmp_path / place, result(name, protocol=protocol, settings=settings), name=f"{name}.json")
    named = [run.name for run in read(tmp_path).runs]
    assert named == ["coop (epochs=10)", "mine", "coop (epochs=20)", "mine"]


def test_settings_that_differ_between_datasets_are_no_variants(tmp_path: Path) -> None:
    write(tmp_path, result(dataset="dtd", settings={"template": "{} texture."}))
    write(tmp_path, result(dataset="eurosat", settings={"template": "a photo of {}."}))
    assert {run.name for run in read(tmp_path).runs} == {"coop"}


@pytest.mark.parametrize(
    ("values", "fair"),
    [
        ({}, True),
        ({"settings": {"allow_missing": True}}, False),
        ({"settings": {"skip_unreadable": True}}, False),
        ({"dataset": "mine", "settings": {"allow_missing": True}}, True),  # nothing is published of it
    ],
)
def test_runs_with_images_left_out_are_not_compared_with_papers(values: dict[str, Any], *, fair: bool) -> None:
    assert comparable(of(**values)) is fair
