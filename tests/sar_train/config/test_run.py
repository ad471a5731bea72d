"""Settings from TOML and the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sar_train.config.run import RunConfig, build, coerce, merge, read_toml
from sar_train.errors import ConfigError
from sar_train.regularisers.sar import SARConfig


def test_all_problems_come_at_once_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        build(RunConfig, {"data": "demo", "shot": 4, "seed": "x", "protocol": "both"}, "run.toml")
    message = str(caught.value)
    assert message.startswith("run.toml: ")
    for problem in ("unknown setting 'shot', did you mean 'shots'?", "seed: expected int", "protocol: expected one of"):
        assert problem in message


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="views: .*; learning_rate: "):
        build(RunConfig, {"data": "demo", "views": 0, "learning_rate": -1}, "settings")
    with pytest.raises(ConfigError, match="seed: .*4294967296"):
        build(RunConfig, {"data": "demo", "seed": 2**32}, "settings")


def test_a_path_that_no_record_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data: 'ph\\udcff'"):
        build(RunConfig, {"data": os.fsdecode(b"ph\xff")}, "settings")


def test_a_section_with_a_typo_is_refused() -> None:
    config = build(RunConfig, merge({"data": "demo"}, {"sar": {"taux": 1}}), "settings")
    with pytest.raises(ConfigError, match=r"\[sar\]: .*'taux'.*'tau'"):
        config.section("sar", SARConfig)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (float, "0.5", 0.5),
        (bool, "no", False),
        (bool, True, True),
        (int | None, None, None),
        (str | None, "", None),
    ],
)
def test_text_is_read_as_its_type(kind: object, value: object, expected: object) -> None:
    assert coerce(kind, value) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, 3.5), (int, True), (float, "much"), (float, "nan"), (float, "-inf"), (bool, "perhaps")],
)
def test_what_cannot_be_read(kind: object, value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        coerce(kind, value)


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml: .*TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")
