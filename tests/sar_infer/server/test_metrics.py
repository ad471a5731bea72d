from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client import generate_latest

from sar_infer.server.metrics import Cause, Metrics


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("sar_rejected_total", "reason", ("overloaded", "cancelled")),
        ("sar_worker_deaths_total", "reason", get_args(Cause)),
        ("sar_reloads_total", "outcome", ("done", "refused")),
        ("sar_class_sets_total", "cache", ("hit", "miss")),
    ],
)
def test_counters_are_there_before_the_first_event(name: str, label: str, values: tuple[str, ...]) -> None:
    registry = Metrics(("overloaded", "cancelled")).registry
    assert {value: registry.get_sample_value(name, {label: value}) for value in values} == dict.fromkeys(values, 0)


def test_every_alert_is_on_metrics_that_exist() -> None:
    """Each has an expression with a value, a severity and one sentence."""
    text = generate_latest(Metrics(("overloaded",)).registry).decode()
    declared = set(re.findall(r"# TYPE (\w+) \w+", text)) | {
        name + end for name in re.findall(r"# TYPE (\w+) histogram", text) for end in ("_sum", "_count", "_bucket")
    }
    (group,) = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "alerts.yaml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 7
    for rule in group["rules"]:
        assert set(re.findall(r"\bsar_\w+", rule["expr"])) <= declared, rule["alert"]
        assert re.search(r"(==|[<>]) [\d.]+", rule["expr"]), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert [rule["expr"].count(sign) for sign in "([{"] == [rule["expr"].count(sign) for sign in ")]}"]
