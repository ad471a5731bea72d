"""Published figures with their sources, known zero-shot accuracies, and names of methods as people write them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, final

OPENAI = ("ViT-B-16", "ViT-B-16-quickgelu")
"""The backbone of the published figures, as open_clip calls it."""
SAR = "+sar"
"""Contained in the names of rows with SAR."""


@final
@dataclass(frozen=True)
class Published:
    """Base and new accuracy in percent, and their source."""

    base: float
    new: float
    source: str


@cache
def load() -> dict[str, Any]:
    """Return the whole of ``published.toml``."""
    return tomllib.loads((files("sar_train.report") / "published.toml").read_text(encoding="utf-8"))


def is_published_backbone(backbone: str, pretrained: str | None) -> bool:
    """Say whether figures under this backbone can be compared with the published ones."""
    return backbone in OPENAI and pretrained == "openai"


def reference_zero_shot(backbone: str, pretrained: str | None, dataset: str) -> Published | None:
    """Return the zero-shot accuracy with the dataset's own template on CoOp's split; None where it is not known.

    Args:
        backbone: as in ``--backbone``.
        pretrained: as in ``--pretrained``.
        dataset: a key of `sar_train.data.layouts.LAYOUTS`.
    """
    if is_published_backbone(backbone, pretrained):
        return of_dataset(dataset).get("clip")
    for entry in load()["zero_shot"]:
        if (entry["backbone"], entry.get("pretrained"), entry["dataset"]) == (backbone, pretrained, dataset):
            base, new = entry["scores"]
            return Published(base, new, entry["source"])
    return None


def of_dataset(dataset: str) -> dict[str, Published]:
    """Return published base and new accuracies on a dataset by method, ``clip`` first; empty if there are none."""
    sources = load()["sources"]
    return {
        method: Published(base, new, sources["clip" if method == "clip" else "datasets"])
        for method, (base, new) in load()["datasets"].get(dataset, {}).items()
    }


def method_key(name: str) -> str:
    """Return the published name of a row: ``dept:kgcoop+sar`` is ``dept-kgcoop``, plain ``dept`` is on CoOp."""
    method = name.removesuffix("+sar").replace(":", "-").lower()
    return {"dept": "dept-coop", "zero-shot": "clip"}.get(method, method)


def label(method: str) -> str:
    """Return a published method's name as people write it."""
    return str(load()["labels"].get(method, method))


def without_sar(name: str) -> str:
    """Return a row's name without SAR: ``coop (epochs=5)`` for ``coop+sar (epochs=5)``."""
    return name.replace(SAR, "")


def method_name(name: str) -> str:
    """Return a row's name as people write it: ``DePT on KgCoOp + SAR (epochs=5)``; plain ``dept`` is ``DePT``."""
    head, bracket, settings = without_sar(name).partition(" (")
    method = head.replace(":", "-").lower()
    title = label(method)
    return (head if title == method else title) + (" + SAR" if SAR in name else "") + bracket + settings
