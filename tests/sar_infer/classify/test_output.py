from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator

import pytest

from sar_infer.classify.output import FORMATS
from sar_infer.results import Explanation, ImageResult, Prediction

GOOD = ImageResult(
    "a b,\n.jpg",
    (
        Prediction("cat", 0.75, 15.0, 0.75, "bank", calibration="held-out"),
        Prediction('the "日本" owl', 0.25, 14.0, 0.7, "extended"),
    ),
)
BAD = ImageResult("x.jpg", error="not an image")
FULL = dataclasses.replace(
    GOOD,
    image="b.jpg",
    unknown=True,
    reason="score 0.750 is below 0.800",
    label_set=("cat", "owl"),
    explanation=Explanation(0.5, "owl", -15.25, (("lynx", 0.875), ("dog", 0.5))),
)


def test_jsonl_is_the_contract() -> None:
    first, second = "".join(FORMATS["jsonl"]([GOOD, BAD])).splitlines()
    assert json.loads(first) == {
        "image": "a b,\n.jpg",
        "predictions": [
            {
                "label": "cat",
                "score": 0.75,
                "logit": 15.0,
                "similarity": 0.75,
                "source": "bank",
                "calibration": "held-out",
            },
            {
                "label": 'the "日本" owl',
                "score": 0.25,
                "logit": 14.0,
                "similarity": 0.7,
                "source": "extended",
                "calibration": "none",
            },
        ],
        "error": None,
        "branch": "text",
    }
    assert json.loads(second) == {"image": "x.jpg", "predictions": [], "error": "not an image", "branch": "text"}


def test_further_facts_have_keys_of_their_own_where_they_are_there() -> None:
    plain, written = (json.loads(line) for line in "".join(FORMATS["jsonl"]([GOOD, FULL])).splitlines())
    assert {key: written[key] for key in written.keys() - plain.keys()} == {
        "unknown": True,
        "reason": "score 0.750 is below 0.800",
        "label_set": ["cat", "owl"],
        "explanation": {
            "margin": 0.5,
            "runner_up": "owl",
            "energy": -15.25,
            "nearest": [["lynx", 0.875], ["dog", 0.5]],
            "background": None,
        },
    }
    believed = dataclasses.replace(GOOD, unknown=False, label_set=())
    written = json.loads("".join(FORMATS["jsonl"]([believed])))
    assert (written["unknown"], written["reason"], written["label_set"], "explanation" in written) == (
        False,
        None,
        [],
        False,
    )
    untold = dataclasses.replace(GOOD, reason="cannot be told: no threshold for this class", branch="text+statistics")
    written = json.loads("".join(FORMATS["jsonl"]([untold])))
    assert (written["unknown"], written["reason"], written["branch"]) == (None, untold.reason, "text+statistics")
    assert "  unknown or not cannot be told: no threshold for this class\n" in "".join(FORMATS["text"]([untold]))


def test_csv() -> None:
    by_name = list(csv.DictReader(io.StringIO("".join(FORMATS["csv"]([GOOD, BAD])))))
    assert [[row[name] for name in ("image", "rank", "label", "source", "error")] for row in by_name] == [
        ["a b,\n.jpg", "1", "cat", "bank", ""],
        ["a b,\n.jpg", "2", 'the "日本" owl', "extended", ""],
        ["x.jpg", "", "", "", "not an image"],
    ]
    assert [float(by_name[1][key]) for key in ("score", "logit", "similarity")] == [0.25, 14.0, 0.7]
    rows = list(csv.reader(io.StringIO("".join(FORMATS["csv"]([GOOD, FULL, BAD])))))
    assert rows[0][8:] == ["calibration", "unknown", "reason", "label_set", "margin", "runner_up", "energy", "nearest"]
    assert rows[1][8:] == ["held-out", *[""] * 7]
    assert rows[2][8:] == ["none", *[""] * 7]
    columns = ["true", "score 0.750 is below 0.800", "cat | owl", "0.5", "owl", "-15.25", "lynx | dog"]
    assert [row[8:] for row in rows[3:]] == [["held-out", *columns], ["none", *columns], [""] * 8]


def test_text_says_it_around_the_classes() -> None:
    lines = "".join(FORMATS["text"]([FULL])).splitlines()
    assert lines[1] == "  unknown: score 0.750 is below 0.800; best guesses:"
    assert lines[4:] == [
        "  one of: cat, owl",
        "  ahead of owl by 50.0%",
        "  energy -15.250",
        "  nearest to the best: lynx (0.88), dog (0.50)",
        '  not calibrated: the "日本" owl',
    ]
    single = dataclasses.replace(FULL, predictions=GOOD.predictions[:1], label_set=(), explanation=None)
    assert "".join(FORMATS["text"]([single])).splitlines()[1::2] == [
        "  unknown: score 0.750 is below 0.800; best guess:",
        "  one of: no class is likely enough",
    ]


@pytest.mark.parametrize("results", [[], [GOOD], [GOOD, BAD]])
def test_json_is_an_array_of_the_same_objects(results: list[ImageResult]) -> None:
    lines = "".join(FORMATS["jsonl"](results)).splitlines()
    assert json.loads("".join(FORMATS["json"](results))) == [json.loads(line) for line in lines]


def test_text() -> None:
    assert "".join(FORMATS["text"]([GOOD, BAD])).splitlines() == [
        r"a b,\n.jpg",
        "   75.0% ██████████████████······   cat",
        '   25.0% ██████·················· + the "日本" owl',
        "",
        "x.jpg",
        "  error: not an image",
    ]


def test_text_cannot_steer_the_terminal() -> None:
    odd = Prediction("cat\x1b[2J", 0.75, 15.0, 0.75, "extended")
    result = dataclasses.replace(FULL, image="\x1b]0;a\x07.jpg", predictions=(odd,), label_set=("a\u202eb",))
    lines = "".join(FORMATS["text"]([result, result])).split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0] == r"\x1b]0;a\x07.jpg"
    assert lines[2].endswith(r"+ cat\x1b[2J")


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
    odd = dataclasses.replace(GOOD, image="=1+1\x1b]0;x\x07\u009b31m\u202egpj\udcff.jpg")
    written = {form: "".join(FORMATS[form]([odd])) for form in ("json", "jsonl", "csv")}
    for text in written.values():
        assert all(line.isprintable() for line in text.splitlines())
    assert json.loads(written["jsonl"])["image"] == odd.image
    assert list(csv.reader(io.StringIO(written["csv"])))[1][0].startswith("'=1+1\\x1b]0;x")
