"""Before anything trains: are the data there, and is zero-shot what it should be? Fills the feature cache too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sar_train.errors import DataError
from sar_train.experiment.job import Job
from sar_train.experiment.known import TOLERANCE, check_zero_shot
from sar_train.record import dataset_entry, scores
from sar_train.setting import prepare

Tell = Callable[[str], None]


def survey(jobs: Sequence[Job], tell: Tell, *, strict: bool = True) -> list[dict[str, Any]]:
    """Open every dataset once for each seed and number of shots, and measure zero-shot.

    Args:
        jobs: the runs to come.
        tell: gets a line for each dataset.
        strict: refuse to go on where a known figure is missed.

    Returns:
        One entry a dataset: ``dataset``, ``zero_shot``, ``zero_shot_check``.

    Raises:
        DataError: zero-shot is more than 0.2 points below a known figure.
        SarTrainError: a dataset cannot be opened.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[tuple[object, ...]] = set()
    for job in jobs:
        plain = dataclasses.replace(job.config, method="coop", sar=False, sections={})
        case = (plain.data, plain.seed, plain.shots, plain.protocol, plain.template, plain.backbone, plain.pretrained)
        if job.config.sar and job.config.novel == "llm" and (*case, "llm") not in seen:
            seen.add((*case, "llm"))
            prepare(job.config, _only_errors)  # asks once for all runs, which then find the answer in the cache
        if case in seen:
            continue
        seen.add(case)
        first = plain.data not in found
        setting = prepare(plain, tell if first else _only_errors)
        if not first:
            continue
        zero_shot = scores(setting.judge(setting.zero_shot))
        entry = {"dataset": dataset_entry(setting), "zero_shot": zero_shot}
        check = check_zero_shot(plain, entry)
        found[plain.data] = entry | {"zero_shot_check": check}
        tell(f"zero-shot on {plain.data}: {_percent(zero_shot)}{_verdict(check)}")
        if check and not check["ok"] and strict:
            raise DataError(
                f"set-up error: zero-shot on {plain.data} is {-check['difference']:.2f} points below the known "
                f"{_percent(check['expected'])} ({check['source']}; up to {TOLERANCE} are allowed): class names, "
                "template, photos or weights differ from those; find out with sar-experiment check-data, or go on all "
                "the same with --allow-setup-errors"
            )
    return list(found.values())


def _only_errors(text: str) -> None:
    """Warnings were shown with the first seed."""


def _percent(values: dict[str, Any]) -> str:
    base, new = values["base_accuracy"], values["new_accuracy"]
    return f"{base:.2f} / {new:.2f}" if new is not None else f"{base:.2f}"


def _verdict(check: dict[str, Any] | None) -> str:
    if check is None:
        return ""
    return f" (known: {_percent(check['expected'])}, {'as it should be' if check['ok'] else 'TOO LOW'})"
