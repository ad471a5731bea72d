from __future__ import annotations

from typing import Any

import pytest

from sar_infer.artefact.manifest import Passport, Scores
from sar_train.errors import RunError
from sar_train.export.passport import APPROXIMATION, PER_IMAGE, passport
from sar_train.training.checkpoint import Run
from sar_train.training.record import MEAN_IMAGE, TEXT_BRANCH

OTHER = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}
RECORD: dict[str, Any] = {
    "config": {"protocol": "base-to-new", "shots": 16},
    "dataset": {"name": "caltech101"},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.6, "further": 1},
    "other_metrics": {TEXT_BRANCH: OTHER, MEAN_IMAGE: OTHER},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
}
OLD = {key: value for key, value in RECORD.items() if key != "other_metrics"}
AS_TRAINED = Scores(80.0, 60.0, 68.6)


def of(record: dict[str, Any], **given: str) -> Passport:
    return passport(Run({}, "x", record=record), **given)


@pytest.mark.parametrize("record", [RECORD, OLD])
def test_it_says_what_the_record_says(record: dict[str, Any]) -> None:
    found = of(record)
    assert (found.dataset, found.protocol, found.shots, found.seeds) == ("caltech101", "base-to-new", 16, (3,))
    assert (found.metrics, found.zero_shot) == (AS_TRAINED, Scores(60.7))
    assert (found.notes, found.tables) == ((), {})


def test_a_run_without_a_record() -> None:
    assert of({}) == Passport()
    assert of({}, alone=MEAN_IMAGE, beside=PER_IMAGE) == Passport(notes=(APPROXIMATION,))


def test_a_head_and_the_text_branch_beside_it() -> None:
    found = of(RECORD, beside=TEXT_BRANCH)
    assert (found.metrics, found.tables) == (AS_TRAINED, {TEXT_BRANCH: OTHER})
    assert of(OLD, beside=TEXT_BRANCH).tables == {}


def test_the_text_branch_alone() -> None:
    found = of(RECORD, alone=TEXT_BRANCH)
    assert (found.metrics, found.tables, found.notes) == (Scores(**OTHER), {}, ())
    assert of(OLD, alone=TEXT_BRANCH).metrics == Scores()


def test_an_approximation_and_what_is_approximated() -> None:
    found = of(RECORD, alone=MEAN_IMAGE, beside=PER_IMAGE)
    assert (found.metrics, found.notes) == (Scores(**OTHER), (APPROXIMATION,))
    assert Scores(**found.tables[PER_IMAGE]) == AS_TRAINED
    assert of(OLD, alone=MEAN_IMAGE, beside=PER_IMAGE).metrics == Scores()


@pytest.mark.parametrize("missing", ["metrics", "zero_shot", "dataset", "config", "seed"])
def test_an_incomplete_record_is_named(missing: str) -> None:
    with pytest.raises(RunError, match=f"lacks '{missing}'"):
        of({key: value for key, value in RECORD.items() if key != missing})
