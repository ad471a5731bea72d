"""Compare torch with onnxruntime on images and on names, before a bundle is moved into place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from sar_infer.artefact.manifest import IMAGE_ENCODER, NAME_ENCODER, TOKENIZER, Parity, Preprocess
from sar_infer.bank.head import ClassHead
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer, encode_name
from sar_train.errors import ExportError
from sar_train.export.verify import (
    BATCHES,
    MAX_DIFFERENCE,
    MIN_COSINE,
    Rows,
    classified,
    generated_pixels,
    open_graph,
)
from sar_train.training.prompted import PromptedCLIP

MOST_NAMES_AT_ONCE = 128
TIE = 1e-6
"""Classes whose cosines differ by less are tied."""

T = TypeVar("T")


def compare(
    folder: Path,
    prompted: PromptedCLIP,
    spec: TokenizerSpec,
    bank: Rows,
    *,
    photos: Sequence[Path],
    names: Sequence[str],
) -> Parity:
    """Measure how far the graphs in ``folder`` are from torch.

    Args:
        folder: has both graphs and the tokenizer.
        prompted: the reference.
        spec: how names become tokens.
        bank: (C, D) rows to classify images with.
        photos: images to try; generated ones are added to fill every batch size.
        names: class names to try; names of every possible length are added.

    Raises:
        ExportError: a figure misses its bound.
        ImageError: a photo cannot be read.
    """
    images, min_cosine, agreement = _images(folder, prompted, bank, photos)
    tokenizer = Tokenizer.open(folder / TOKENIZER)
    tried = [*dict.fromkeys([*names, *names_of_every_length(tokenizer, spec)])]
    tokens = [[*encode_name(tokenizer, spec, name), spec.end_token] for name in tried]
    difference = name_difference(folder / NAME_ENCODER, prompted, tried, tokens)
    parity = Parity(images, min_cosine, agreement, len(tried), difference)
    _gate(parity)
    return parity


def compare_answers(folder: Path, prompted: PromptedCLIP, head: ClassHead) -> None:
    """Check that a bundle with a head gives torch's logits when the candidates are the head's classes.

    They may differ by as much as a difference of `MAX_DIFFERENCE` in a unit row can cause.

    Raises:
        ExportError: they differ by more.
    """
    spec, images = prompted.backbone.preprocess, range(max(BATCHES))
    pixels = torch.from_numpy(np.stack([generated_pixels(spec, seed) for seed in images]))
    reference = prompted.logits(prompted.encode_images(pixels), prompted.trained).cpu().numpy()
    found = classified(folder, [self_test_image(spec.size, seed) for seed in images], head.names)
    difference = float(np.abs(found - reference).max())
    steepest = prompted.backbone.logit_scale + float(np.linalg.norm(head.weight, axis=1).max())
    if not difference <= MAX_DIFFERENCE * steepest:
        raise ExportError(
            f"class head: logits differ from torch by {difference:.3g} on {len(images)} images, expected at most "
            f"{MAX_DIFFERENCE * steepest:.3g}; nothing was written"
        )


def names_of_every_length(tokenizer: Tokenizer, spec: TokenizerSpec) -> list[str]:
    """Return names of 1, 2, … words of one token each, up to the longest that fits."""
    room = spec.max_name_tokens + 1 - len(tokenizer.encode("dog" + spec.suffix))
    return [" ".join(["dog", "cat"][i % 2] for i in range(length)) for length in range(1, room + 1)]


def in_batches(items: Sequence[T], most: int = max(BATCHES)) -> Iterator[Sequence[T]]:
    """Yield pieces of 1, 2, 7 and 33, then of ``most``."""
    start, sizes = 0, [*BATCHES]
    while start < len(items):
        size = sizes.pop(0) if sizes else most
        yield items[start : start + size]
        start += size


def _images(folder: Path, prompted: PromptedCLIP, bank: Rows, photos: Sequence[Path]) -> tuple[int, float, float]:
    graph, spec = open_graph(folder / IMAGE_ENCODER), prompted.backbone.preprocess
    images: list[Path | int] = [*photos, *range(sum(BATCHES) - len(photos))]
    cosines, agreed = [], 0
    for batch in in_batches(images):
        pixels = np.stack([_pixels(item, spec) for item in batch])
        ours, reference = graph(pixels), prompted.encode_images(torch.from_numpy(pixels)).cpu().numpy()
        cosines += (ours * reference).sum(1).tolist()
        similarity = reference @ bank.T
        answer = (ours @ bank.T).argmax(1)
        agreed += int((similarity[np.arange(len(answer)), answer] >= similarity.max(1) - TIE).sum())
    return len(images), float(np.min(cosines)), agreed / len(images)


def _pixels(image: Path | int, spec: Preprocess) -> Rows:
    if isinstance(image, int):
        return generated_pixels(spec, image)
    try:
        return to_input(load_rgb(image, spec.fill), spec)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from None


def name_difference(
    encoder: Path, prompted: PromptedCLIP, names: Sequence[str], tokens: Sequence[Sequence[int]]
) -> float:
    """Return the largest difference between a name encoder's rows and torch's.

    Args:
        encoder: the graph.
        prompted: the reference.
        names: class names.
        tokens: the graph's input for each, the end token included.
    """
    graph, found = open_graph(encoder), []
    for batch in in_batches(range(len(names)), MOST_NAMES_AT_ONCE):
        padded = np.zeros((len(batch), max(len(tokens[i]) for i in batch)), dtype=np.int64)
        for row, i in zip(padded, batch, strict=True):
            row[: len(tokens[i])] = tokens[i]
        reference = prompted.embed([names[i] for i in batch]).cpu().numpy()
        found.append(np.abs(graph(padded) - reference).max())
    return float(np.max(found))


def _gate(parity: Parity) -> None:
    """Raise if a figure is beyond its bound, or NaN, which compares false with everything."""
    if not parity.image_min_cosine >= MIN_COSINE:
        raise ExportError(
            f"image encoder: cosine {parity.image_min_cosine:.7f} to torch on the worst of {parity.images} images, "
            f"expected at least {MIN_COSINE}; nothing was written"
        )
    if not parity.top1_agreement == 1:
        raise ExportError(
            f"image encoder: {parity.top1_agreement:.2%} of {parity.images} images get the class that torch gives "
            "them, expected all; nothing was written"
        )
    if not parity.name_max_difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"name encoder: differs from torch by {parity.name_max_difference:.3g} on {parity.names} names, expected "
            f"at most {MAX_DIFFERENCE}; nothing was written"
        )
