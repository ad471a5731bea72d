from __future__ import annotations

import math

import pytest

from sar_infer.bundle_check.finding import Check, at_least, at_most, plain, same, table


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (at_least("x", 0.5, 0.5), "ok"),
        (at_least("x", 0.4999, 0.5), "moved"),
        (at_least("x", math.nan, 0.5), "moved"),
        (at_most("x", 0.5, 0.5), "ok"),
        (at_most("x", 0.5001, 0.5), "moved"),
        (at_most("x", math.nan, 0.5), "moved"),
        (same("x", "a", "a"), "ok"),
        (same("x", "a", "b"), "moved"),
    ],
)
def test_verdicts(finding: Check, verdict: str) -> None:
    assert finding.verdict == verdict


def test_a_number_that_is_not_finite_is_null_in_json() -> None:
    fields = plain(at_most("x", math.nan, 0.5, then=math.inf))
    assert fields == {"what": "x", "then": None, "now": None, "verdict": "moved", "bound": "at most 0.5"}


def test_the_table() -> None:
    lines = [
        at_least("probe", 0.75, 0.9, then=1.0),
        Check("version of numpy", "1.0", "2.0", "changed"),
        Check("accuracy", None, 70.714286, "noted"),
    ]
    assert table(lines).splitlines() == [
        "                  then  now       moved by  verdict",
        "probe             1     0.75      -0.25     moved (at least 0.9)",
        "version of numpy  1.0   2.0                 changed",
        "accuracy          -     70.71429            noted",
    ]
