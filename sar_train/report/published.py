"""Figures that others have published, with their source, and the zero-shot accuracies that a set-up should reach."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, final

OPENAI = ("ViT-B-16", "ViT-B-16-quickgelu")
"""The backbone of the published figures, as open_clip calls it."""


@final
@dataclass(frozen=True)
class Known:
    """Base and new accuracy in percent, and where they stand."""

    base: float
    new: float
    source: str


@cache
def load() -> dict[str, Any]:
    """The whole of ``published.toml``."""
    return tomllib.loads((files("sar_train.report") / "published.toml").read_text(encoding="utf-8"))


def is_published_backbone(backbone: str, pretrained: str | None) -> bool:
    """Whether figures under this backbone can be compared with the published ones."""
    return backbone in OPENAI and pretrained == "openai"


def known_zero_shot(backbone: str, pretrained: str | None, dataset: str) -> Known | None:
    """Zero-shot accuracy with the dataset's own template, on CoOp's split; None where nobody has said.

    Args:
        backbone: as in ``--backbone``.
        pretrained: as in ``--pretrained``.
        dataset: a key of `sar_train.data.layouts.LAYOUTS`.
    """
    if is_published_backbone(backbone, pretrained):
        found = of_dataset(dataset).get("clip")
        return found and Known(found.base, found.new, found.source)
    for entry in load()["known"]:
        if (entry["backbone"], entry.get("pretrained"), entry["dataset"]) == (backbone, pretrained, dataset):
            return _known(entry["scores"], entry["source"])
    return None


def of_dataset(dataset: str) -> dict[str, Known]:
    """Published base and new accuracies on a dataset by method, ``clip`` first; empty where there are none."""
    sources = load()["sources"]
    return {
        method: _known(scores, sources["clip" if method == "clip" else "datasets"])
        for method, scores in load()["datasets"].get(dataset, {}).items()
    }


def _known(scores: Sequence[float], source: str) -> Known:
    base, new = scores
    return Known(base, new, source)


def method_key(name: str) -> str:
    """The published name of a row of ours: ``dept:kgcoop+sar`` is ``dept-kgcoop``, plain ``dept`` is on CoOp."""
    plain = name.removesuffix("+sar").replace(":", "-").lower()
    return {"dept": "dept-coop", "zero-shot": "clip"}.get(plain, plain)


def label(method: str) -> str:
    """A published method's name as people write it."""
    found: str = load()["labels"].get(method, method)
    return found
