"""Methods as training might leave them, and a bundle from one in a single call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from support.full_length import image_rows, text_rows
from support.tiny import VIT, tiny_backbone
from torch import Tensor

from sar_train.clip.prompts import DeepPrompt, split_template
from sar_train.export.bundle import export_bundle
from sar_train.export.source import ExportSource
from sar_train.methods.base import Classes, Setup, methods
from sar_train.training.prompted import PromptedCLIP


def source_of(prompted: PromptedCLIP, names: Sequence[str]) -> ExportSource:
    """The source that `export_run` exports; settings, quality and licences are empty."""
    (method,) = [name for name, kind in methods.entries.items() if type(prompted.method) is kind]
    return ExportSource(prompted, {name: (name,) for name in names}, method)


def export_run(prompted: PromptedCLIP, names: Sequence[str], folder: Path) -> Path:
    """Write a bundle, with all checks of an export.

    Args:
        prompted: any registered method on its backbone; the prompt for the mean photo where it depends on the photo.
        names: classes of the bank. A head is part of the bundle where they contain all trained classes.
        folder: does not exist yet.

    Returns:
        ``folder``, for ``sar_infer.Classifier.open``.
    """
    settings = {"folder": str(folder)}  # which `prompted` does not know; the run time keeps embeddings by their digest
    export_bundle(dataclasses.replace(source_of(prompted, names), settings=settings), folder, command="tests")
    return folder


def moved(
    method: str,
    backbone: str = VIT,
    *,
    template: str = "a photo of a {}.",
    names: Sequence[str] = ("cat", "sea_lake", "red car"),
    **settings: Any,
) -> PromptedCLIP:
    """A registered method whose parameters are some way from where training starts."""
    generator = torch.Generator().manual_seed(5)
    loaded, kind = tiny_backbone(backbone), methods.get(method)
    mean = torch.nn.functional.normalize(torch.randn(loaded.embed_dim, generator=generator), dim=0)
    made = kind(kind.Config(**settings), Setup(loaded, tuple(names), template, generator))
    if kind.per_image:
        made.get_buffer("mean_image").copy_(mean)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return PromptedCLIP(loaded, made.eval().requires_grad_(requires_grad=False), template, tuple(names))


def reference_names(prompted: PromptedCLIP, names: Sequence[str]) -> Tensor:
    """(C, D) class embeddings by whole sequences through open_clip's blocks."""
    backbone = prompted.backbone
    before, suffix = split_template(prompted.template)
    words = backbone.text.embed_text(before)
    prompts = prompted.method.prompts(Classes(names, lambda: text_rows(backbone, names, words, suffix=suffix)))
    shares = {insertion.weight for insertion in prompts.text.values() if insertion.mode == "replace"}
    (share,) = shares or {1.0}
    return text_rows(
        backbone,
        names,
        prompts.context,
        suffix_context=prompts.suffix_context,
        suffix=prompts.suffix,
        replace=_of_mode(prompts.text, "replace"),
        append=_of_mode(prompts.text, "append"),
        share=share,
    )


def reference_images(prompted: PromptedCLIP, pixels: Tensor) -> Tensor:
    """(N, D) image features by open_clip's image tower, prompts put in by hooks."""
    image = {}
    if "image" in prompted.method.towers:
        image = prompted.method.prompts(prompted.classes(prompted.trained)).image
    (first,) = _of_mode(image, "append").values() or (None,)
    return image_rows(prompted.backbone, pixels, append=first, replace=_of_mode(image, "replace"))


def _of_mode(insertions: Mapping[int, DeepPrompt], mode: str) -> dict[int, Tensor]:
    return {layer: insertion.vectors for layer, insertion in insertions.items() if insertion.mode == mode}
