from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator

import pytest

from sar_infer.output import FORMATS
from sar_infer.results import ImageResult, Prediction

GOOD = ImageResult(
    "a b,\n.jpg",
    (Prediction("cat", 0.75, 15.0, 0.75, "bank"), Prediction('the "日本" owl', 0.25, 14.0, 0.7, "extended")),
)
BAD = ImageResult("x.jpg", error="not an image")


def test_jsonl_is_the_contract() -> None:
    first, second = "".join(FORMATS["jsonl"]([GOOD, BAD])).splitlines()
    assert json.loads(first) == {
        "image": "a b,\n.jpg",
        "predictions": [
            {"label": "cat", "score": 0.75, "logit": 15.0, "similarity": 0.75, "source": "bank"},
            {"label": 'the "日本" owl', "score": 0.25, "logit": 14.0, "similarity": 0.7, "source": "extended"},
        ],
        "error": None,
        "branch": "text",
    }
    assert json.loads(second) == {"image": "x.jpg", "predictions": [], "error": "not an image", "branch": "text"}


def test_branch_is_told_to_programs_and_changes_nothing_else() -> None:
    headed = dataclasses.replace(GOOD, branch="head+text")
    assert json.loads("".join(FORMATS["jsonl"]([headed])))["branch"] == "head+text"
    assert json.loads("".join(FORMATS["json"]([headed])))[0]["branch"] == "head+text"
    for form in ("text", "csv"):
        assert list(FORMATS[form]([headed])) == list(FORMATS[form]([GOOD]))


@pytest.mark.parametrize("results", [[], [GOOD], [GOOD, BAD]])
def test_json_is_an_array_of_the_same_objects(results: list[ImageResult]) -> None:
    lines = "".join(FORMATS["jsonl"](results)).splitlines()
    assert json.loads("".join(FORMATS["json"](results))) == [json.loads(line) for line in lines]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(FORMATS["csv"]([GOOD, BAD])))))
    assert [(row["image"], row["rank"], row["label"], row["source"], row["error"]) for row in rows] == [
        ("a b,\n.jpg", "1", "cat", "bank", ""),
        ("a b,\n.jpg", "2", 'the "日本" owl', "extended", ""),
        ("x.jpg", "", "", "", "not an image"),
    ]
    assert [float(rows[1][key]) for key in ("score", "logit", "similarity")] == [0.25, 14.0, 0.7]


def test_text() -> None:
    assert "".join(FORMATS["text"]([GOOD, BAD])).splitlines()[2:] == [
        "   75.0% ██████████████████······   cat",
        '   25.0% ██████·················· + the "日本" owl',
        "",
        "x.jpg",
        "  error: not an image",
    ]


@pytest.mark.parametrize("form", ["text", "jsonl", "csv"])
def test_output_comes_as_results_come(form: str) -> None:
    """The first result is out before the second is asked for."""

    def results() -> Iterator[ImageResult]:
        yield GOOD
        raise AssertionError

    printed = ""
    with pytest.raises(AssertionError):
        for piece in FORMATS[form](results()):
            printed += piece
    assert "cat" in printed
