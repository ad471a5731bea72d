"""What a run's record says about the quality of the bundle that is made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sar_infer.artefact.manifest import Passport, Scores
from sar_train.errors import RunError
from sar_train.evaluation.confidence import Fitted
from sar_train.training.checkpoint import Run
from sar_train.training.record import MEAN_IMAGE

PER_IMAGE = "per-image"
"""How a run answers whose prompt depends on the photo; a bundle cannot."""
APPROXIMATION = (
    "an approximation: this method makes a prompt for each photo, the bundle has the prompt for the mean training photo"
)


def passport(run: Run, *, alone: str | None = None, beside: str | None = None) -> Passport:
    """Quality as the record has it; empty where there is no record.

    Args:
        run: a finished run.
        alone: the way of ``other_metrics`` in which the bundle answers, None where it answers as the run did. The
            scores are empty where the record, an older one, does not have it.
        beside: a further way to answer that is shown beside: ``per-image`` is how the run did.

    Raises:
        RunError: the record is incomplete.
    """
    record = run.record
    notes = (APPROXIMATION,) if alone == MEAN_IMAGE else ()
    if not record:
        return Passport(notes=notes)
    others = record.get("other_metrics", {})
    tables = others | {PER_IMAGE: record.get("metrics")}
    try:
        return Passport(
            dataset=record["dataset"]["name"],
            protocol=record["config"]["protocol"],
            shots=record["config"]["shots"],
            seeds=(record["seed"],),
            metrics=_scores(record["metrics"] if alone is None else others.get(alone)),
            zero_shot=_scores(record["zero_shot"]),
            notes=notes,
            tables={beside: dataclasses.asdict(_scores(tables[beside]))} if beside and beside in tables else {},
        )
    except KeyError as error:
        raise RunError(f"record.json of the run lacks {error}") from None


def confidence(run: Run) -> Fitted | None:
    """What the record has to judge a bundle's answers by; None where it has nothing.

    Raises:
        RunError: the record is incomplete.
    """
    found = run.record.get("calibration")
    try:
        return None if found is None else Fitted.read(found)
    except (KeyError, TypeError) as error:
        raise RunError(f"record.json of the run: calibration cannot be used ({error})") from None


def _scores(values: Mapping[str, Any] | None) -> Scores:
    """Scores from a record, which may hold more; empty for None.

    Raises:
        KeyError: one is missing.
    """
    if values is None:
        return Scores()
    return Scores(**{known.name: values[known.name] for known in dataclasses.fields(Scores)})
