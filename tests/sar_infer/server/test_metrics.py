from __future__ import annotations

import sys
from typing import get_args

import pytest

from sar_infer.server.metrics import Metrics
from sar_infer.server.model.workers import Cause


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


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus_client reads /proc")
def test_the_process_is_measured() -> None:
    registry = Metrics().registry
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 2**20
    assert (registry.get_sample_value("process_open_fds") or 0) > 2
