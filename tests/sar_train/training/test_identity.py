"""What the outcome of a run depends on (`experiment.job` has the rest)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from support.regularisers import seven

from sar_train.config.run import RunConfig
from sar_train.errors import ConfigError
from sar_train.training.identity import check_sections, outcome_settings, regulariser_settings


@pytest.mark.parametrize("form", ["{}", "file:{}", "dataset:{}"])
def test_a_file_counts_by_its_content(tmp_path: Path, form: str) -> None:
    names = tmp_path / "names.txt"
    config = RunConfig("demo", novel=form.format(names))
    names.write_text("fox")
    first = outcome_settings(config)
    os.utime(names, ns=(1, 1))
    assert outcome_settings(config) == first
    names.write_text("owl")
    assert outcome_settings(config) != first
    names.unlink()
    assert "digests" not in outcome_settings(config)
    assert "digests" not in outcome_settings(dataclasses.replace(config, sar=False))


def test_a_setting_that_came_later_counts_where_it_is_not_the_default() -> None:
    """So results that were kept before there was the setting still have their key."""
    plain = outcome_settings(RunConfig("demo", method="tcp"))
    assert "student" not in plain["sections"]["tcp"]
    assert outcome_settings(RunConfig("demo", method="tcp", sections={"tcp": {"student": ""}})) == plain
    custom = outcome_settings(RunConfig("demo", method="tcp", sections={"tcp": {"student": "my {}."}}))
    assert custom["sections"]["tcp"] == plain["sections"]["tcp"] | {"student": "my {}."}


def test_settings_of_another_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="kgcoop"):
        check_sections(RunConfig("demo", sections={"kgcoop": {}}))


def test_settings_of_a_regulariser_take_it_in_place_of_sar() -> None:
    sections = {"seven": {"weight": 2}}
    with seven():
        config = RunConfig("demo", sections=sections)
        check_sections(config)
        assert outcome_settings(config)["sections"].keys() == {"coop", "seven"}
        assert regulariser_settings(config).weight == 2
        assert "seven" not in outcome_settings(dataclasses.replace(config, sar=False))["sections"]
        with pytest.raises(ConfigError, match="settings for sar and seven, but a run has one regulariser"):
            check_sections(RunConfig("demo", sections=sections | {"sar": {}}))
    with pytest.raises(ConfigError, match="settings for seven, but this run uses coop and sar"):
        check_sections(RunConfig("demo", sections=sections))


@pytest.mark.parametrize(
    ("method", "settings", "weight"),
    [
        ("coop", {}, 10),
        ("prograd", {}, 1),
        ("prograd", {"weight": 3}, 3),
        ("prograd", {"distance": "l1"}, 10),
        ("dept", {}, 10),
    ],
)
def test_a_method_may_have_a_weight_of_its_own_for_sar(method: str, settings: dict[str, Any], weight: float) -> None:
    config = RunConfig(data="demo", method=method, sections={"sar": settings})
    assert regulariser_settings(config).weight == weight
    assert outcome_settings(config)["sections"]["sar"]["weight"] == weight
