"""Kept answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.folders import listing

from sar_train.errors import DataError
from sar_train.novel_names.answers import FOLDER, Answers
from sar_train.novel_names.endpoint import Answer


def test_an_answer_is_found_by_model_seed_and_request(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "new")
    given = Answer("fox\nBär", "stub-1-2026")
    assert answers.get("stub-1", 1, "List.") is None
    answers.put("stub-1", 1, "List.", given)
    assert Answers(tmp_path / "new").get("stub-1", 1, "List.") == given
    for other in (("stub-2", 1, "List."), ("stub-1", 2, "List."), ("stub-1", 1, "List!")):
        assert answers.get(*other) is None


def test_what_is_kept(tmp_path: Path) -> None:
    Answers(tmp_path).put("stub-1", 3, "List.", Answer("fox", "stub-1-2026"))
    (name,) = listing(tmp_path / FOLDER)
    kept = json.loads((tmp_path / FOLDER / name).read_text(encoding="utf-8"))
    assert kept.pop("date").startswith("20")
    assert kept == {
        "model": "stub-1-2026",
        "asked_for": "stub-1",
        "temperature": 0.0,
        "seed": 3,
        "request": "List.",
        "answer": "fox",
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"answer": 1, "model": "m"}', b"\xff"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    answers = Answers(tmp_path)
    answers.put("m", 1, "r", Answer("fox", "m"))
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(content)
    assert answers.get("m", 1, "r") is None


def test_nothing_is_kept_without_a_place_and_a_bad_place_is_said(tmp_path: Path) -> None:
    Answers(None).put("m", 1, "r", Answer("fox", "m"))
    assert Answers(None).get("m", 1, "r") is None
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Answers(tmp_path / "file").put("m", 1, "r", Answer("fox", "m"))
