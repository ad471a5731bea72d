"""``record.json``: what a run was, and what came of it."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from sar_train.evaluate import Evaluation, harmonic_mean

if TYPE_CHECKING:
    from sar_train.setting import Setting

PACKAGES = ("sar-clip", "torch", "open_clip_torch", "timm", "numpy", "safetensors")


def scores(parts: dict[str, Evaluation | None]) -> dict[str, float | None]:
    """Base and new accuracy and their harmonic mean in percent; null where the protocol has none."""
    base = parts["base"].accuracy if parts["base"] else None
    new = parts["new"].accuracy if parts["new"] else None
    return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic_mean(base, new)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source"
    return found


def make_record(
    setting: Setting,
    result: dict[str, Evaluation | None],
    zero_shot: dict[str, Evaluation | None],
    probe_accuracy: float,
    history: list[dict[str, float]],
    timing: dict[str, float],
) -> dict[str, Any]:
    """The record as plain JSON values; keys are listed in ``docs/record.md``."""
    config, novel = setting.config, setting.novel
    return {
        "schema_version": 1,
        "config": dataclasses.asdict(config)
        | {"template": setting.template, "protocol": setting.plan.protocol, "schedule": vars(setting.schedule)},
        "seed": config.seed,
        "backbone": {"name": config.backbone, "weights_digest": setting.backbone.weights_digest},
        "dataset": {
            "name": setting.source.name,
            "classes": list(setting.problem.class_names),
            "photos": len(setting.problem.labels),
            "judged_on": setting.plan.split,
        },
        "metrics": scores(result),
        "zero_shot": scores(zero_shot),
        "linear_probe": {"base_accuracy": probe_accuracy},
        "novel": None
        if novel is None
        else {"source": novel.source, "count": len(novel.names), "overlap": novel.overlap},
        "per_class": {name: part.per_class if part else None for name, part in result.items()},
        "per_class_counts": {name: part.counts if part else None for name, part in result.items()},
        "confused": {name: part.confused if part else None for name, part in result.items()},
        "history": history,
        "timing": timing,
        "versions": versions(),
    }
