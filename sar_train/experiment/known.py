"""Zero-shot accuracies that are known: a set-up that does not reach them has a mistake that no training mends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sar_train.config.run import RunConfig
from sar_train.report.published import known_zero_shot

TOLERANCE = 0.2
"""Points that rounding, resizing and arithmetic may cost."""


def check_zero_shot(config: RunConfig, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare a run's zero-shot accuracies with the known ones.

    Args:
        config: the settings; with a template of the user's own, or with photos left out, nothing is known.
        record: the run's, or anything with ``dataset`` and ``zero_shot`` as in it.

    Returns:
        ``expected`` and ``source``, the largest ``difference`` downwards in points (negative: too low), and ``ok``;
        None where nothing is known.
    """
    measured, dataset = record["zero_shot"], record["dataset"]
    if config.template or config.allow_missing or config.skip_unreadable or measured["new_accuracy"] is None:
        return None
    if dataset["judged_on"] != "test" or dataset["split_origin"] != "published":
        return None
    known = known_zero_shot(config.backbone, config.pretrained, dataset["name"])
    if known is None:
        return None
    gap = round(min(measured["base_accuracy"] - known.base, measured["new_accuracy"] - known.new), 3)
    return {
        "expected": {"base_accuracy": known.base, "new_accuracy": known.new},
        "source": known.source,
        "difference": gap,
        "ok": gap >= -TOLERANCE,
    }
