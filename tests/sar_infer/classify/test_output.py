from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator

import pytest

from sar_infer.classify.output import FORMATS
from sar_infer.results import Explanation, ImageResult, Label, Prediction

GOOD = ImageResult(
    "a b,\n.jpg",
    (Prediction("cat", 0.75, 15.0, 0.75, "bank"), Prediction('the "日本" owl', 0.25, 14.0, 0.7, "extended")),
    unknown=0.125,
)
BAD = ImageResult("x.jpg", error="not an image")
FULL = dataclasses.replace(
    GOOD,
    image="b.jpg",
    predictions=(),
    unknown=0.5,
    reason="probability 0.500 is above 0.300",
    label_set=("cat", "owl"),
    explanation=Explanation(0.5, "owl", (("lynx", 0.875), ("dog", 0.5))),
)


def test_jsonl_is_the_contract() -> None:
    first, second = "".join(FORMATS["jsonl"]([GOOD, BAD])).splitlines()
    assert json.loads(first) == {
        "image": "a b,\n.jpg",
        "predictions": [
            {"label": "cat", "score": 0.75, "logit": 15.0, "similarity": 0.75, "source": "bank"},
            {"label": 'the "日本" owl', "score": 0.25, "logit": 14.0, "similarity": 0.7, "source": "extended"},
        ],
        "error": None,
        "unknown": 0.125,
    }
    assert json.loads(second) == {"image": "x.jpg", "predictions": [], "error": "not an image", "unknown": None}


def test_further_facts_have_keys_of_their_own_where_they_are_there() -> None:
    plain, written = (json.loads(line) for line in "".join(FORMATS["jsonl"]([GOOD, FULL])).splitlines())
    assert (written["unknown"], written["predictions"]) == (0.5, [])
    assert {key: written[key] for key in written.keys() - plain.keys()} == {
        "reason": "probability 0.500 is above 0.300",
        "label_set": ["cat", "owl"],
        "explanation": {
            "margin": 0.5,
            "runner_up": "owl",
            "nearest": [["lynx", 0.875], ["dog", 0.5]],
            "background": None,
        },
    }


def test_of_several_classes_each_that_an_image_shows_has_a_line() -> None:
    labels = (Label("owl", 0.9, (0.0, 0.0, 1.0, 1.0)), Label("cat", 0.75, (0.5, 0.0, 1.0, 0.5)))
    some, none = dataclasses.replace(GOOD, labels=labels), dataclasses.replace(GOOD, labels=())
    lines = "".join(FORMATS["text"]([some, none])).splitlines()
    assert [line.split()[0] + line[33:] for line in lines[1:3]] == ["90.0%   owl", "75.0%   cat, upper right"]
    assert lines[-1] == "  none of the classes"
    first = json.loads(next(iter(FORMATS["jsonl"]([some]))))
    assert first["labels"][1] == {"label": "cat", "score": 0.75, "box": [0.5, 0.0, 1.0, 0.5]}
    rows = csv.DictReader(io.StringIO("".join(FORMATS["csv"]([some, none]))))
    assert [row["labels"] for row in rows] == ["owl | cat", "owl | cat", "", ""]


def test_csv() -> None:
    by_name = list(csv.DictReader(io.StringIO("".join(FORMATS["csv"]([GOOD, BAD])))))
    assert [[row[name] for name in ("image", "rank", "label", "source", "error")] for row in by_name] == [
        ["a b,\n.jpg", "1", "cat", "bank", ""],
        ["a b,\n.jpg", "2", 'the "日本" owl', "extended", ""],
        ["x.jpg", "", "", "", "not an image"],
    ]
    assert [float(by_name[1][key]) for key in ("score", "logit", "similarity")] == [0.25, 14.0, 0.7]
    rows = list(csv.reader(io.StringIO("".join(FORMATS["csv"]([GOOD, FULL, BAD])))))
    assert rows[0][8:] == ["unknown", "reason", "label_set", "margin", "runner_up", "nearest", "labels", "bank"]
    assert rows[1][8:] == rows[2][8:] == ["0.125", *[""] * 7]
    assert rows[3] == [
        *("b.jpg", *[""] * 7),
        *("0.5", "probability 0.500 is above 0.300", "cat | owl", "0.5", "owl", "lynx | dog", "", ""),
    ]
    assert rows[4][8:] == [""] * 8


def test_text_says_it_around_the_classes() -> None:
    assert "".join(FORMATS["text"]([FULL])).splitlines()[1:] == [
        "  unknown: probability 0.500 is above 0.300",
        "  one of: cat, owl",
        "  ahead of owl by 50.0%",
        "  nearest to the best: lynx (0.88), dog (0.50)",
    ]
    single = dataclasses.replace(FULL, label_set=(), explanation=None)
    assert "".join(FORMATS["text"]([single])).splitlines()[2] == "  one of: no class is likely enough"


@pytest.mark.parametrize("results", [[], [GOOD], [GOOD, BAD]])
def test_json_is_an_array_of_the_same_objects(results: list[ImageResult]) -> None:
    lines = "".join(FORMATS["jsonl"](results)).splitlines()
    assert json.loads("".join(FORMATS["json"](results))) == [json.loads(line) for line in lines]


def test_text() -> None:
    assert "".join(FORMATS["text"]([GOOD, BAD])).splitlines() == [
        r"a b,\n.jpg",
        "   12.5% unknown",
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


def test_names_reach_no_terminal_or_spreadsheet_as_commands() -> None:
    name = "=1+1\x1b]0;x\x07\u009b31m\u202egpj\udcff.jpg"
    cat = Prediction("cat\x1b[2J", 0.75, 15.0, 0.75, "extended")
    odd = dataclasses.replace(FULL, image=name, predictions=(cat,), label_set=("a\u202eb",))
    written = {form: "".join(FORMATS[form]([odd])) for form in FORMATS}
    for text in written.values():
        assert all(line.isprintable() for line in text.splitlines())
    assert written["text"].splitlines()[2].endswith(r"+ cat\x1b[2J")
    assert json.loads(written["jsonl"])["image"] == name
    assert list(csv.reader(io.StringIO(written["csv"])))[1][0].startswith("'=1+1\\x1b]0;x")
