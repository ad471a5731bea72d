"""Compare what was written with torch, before a bundle is moved into place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, TOKENIZER, Parity, Preprocess
from sar_infer.bundle_check.comparison import (
    BATCHES,
    MAX_DIFFERENCE,
    MIN_COSINE,
    compare_rows,
    in_batches,
    largest_difference,
    open_graph,
)
from sar_infer.bundle_check.finding import at_least, at_most
from sar_infer.classifier import Classifier
from sar_infer.classifiers.head import ClassHead
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.self_test import self_test_image, self_test_pixels
from sar_infer.errors import ImageError
from sar_infer.images.prefetch import decode_image
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer, encode_name
from sar_train.export.refuse import refuse
from sar_train.training.prompted import PromptedCLIP

MOST_NAMES_AT_ONCE = 128
TIE = 1e-6
"""Classes whose cosines differ by less are tied."""

T = TypeVar("T")


def compare(
    folder: Path,
    prompted: PromptedCLIP,
    spec: TokenizerSpec,
    bank: Floats,
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
    images: list[Path | int] = [*photos, *range(sum(BATCHES) - len(photos))]
    pixels = (np.stack([_pixels(item, prompted.backbone.preprocess) for item in batch]) for batch in in_batches(images))
    rows, reference = _both(pixels, open_graph(folder / IMAGE_ENCODER), lambda batch: _images(prompted, batch))
    figures = compare_rows(rows, reference, lambda batch: batch @ bank.T, TIE)
    refuse(
        at_least(
            f"image encoder, cosine to torch on the worst of {len(images)} images", figures.min_cosine, MIN_COSINE
        ),
        at_least(f"image encoder, share of {len(images)} images with torch's class", figures.top1_agreement, 1),
    )
    count, difference = _compare_names(folder, prompted, spec, names)
    return Parity(len(images), figures.min_cosine, figures.top1_agreement, count, difference)


def _compare_names(
    folder: Path, prompted: PromptedCLIP, spec: TokenizerSpec, names: Sequence[str]
) -> tuple[int, float]:
    """Return how many names were tried and the largest difference between the name encoder's rows and torch's."""
    tokenizer, graph = Tokenizer.open(folder / TOKENIZER), open_graph(folder / NAME_ENCODER)
    tokens = {
        name: [*encode_name(tokenizer, spec, name), spec.end_token]
        for name in (*names, *names_of_every_length(tokenizer, spec))
    }
    rows, reference = _both(
        in_batches([*tokens], MOST_NAMES_AT_ONCE),
        lambda batch: graph(_padded([tokens[name] for name in batch])),
        lambda batch: prompted.embed(batch).cpu().numpy(),
    )
    difference = largest_difference(rows, reference)
    refuse(at_most(f"{NAME_ENCODER}, difference to torch on {len(tokens)} names", difference, MAX_DIFFERENCE))
    return len(tokens), difference


def compare_answers(folder: Path, prompted: PromptedCLIP, head: ClassHead) -> None:
    """Check that a bundle with a head gives torch's logits when the candidates are the head's classes.

    They may differ by as much as a difference of `MAX_DIFFERENCE` in a unit row can cause.

    Raises:
        ExportError: they differ by more.
    """
    spec, seeds = prompted.backbone.preprocess, range(max(BATCHES))
    pixels = np.stack([self_test_pixels(spec, seed) for seed in seeds])
    reference = prompted.logits(prompted.encode_images(torch.from_numpy(pixels)), prompted.trained).cpu().numpy()
    logits = classified(folder, [self_test_image(spec.size, seed) for seed in seeds], head.names)
    steepest = prompted.backbone.logit_scale + float(np.linalg.norm(head.weight, axis=1).max())
    label = f"class head, difference of logits to torch on {len(seeds)} images"
    refuse(at_most(label, largest_difference(logits, reference), MAX_DIFFERENCE * steepest))


def classified(path: Path, images: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Floats:
    """Return the run time's logits (N, C) when ``names`` are the only candidates."""
    classifier = Classifier(open_bundle(path), device="cpu", cache=EmbeddingCache())
    results = classifier.classify(images, names, only=True, top_k=len(names))
    answers = [{prediction.label: prediction.logit for prediction in result.predictions} for result in results]
    return np.array([[logits[name] for name in names] for logits in answers], dtype=np.float32)


def names_of_every_length(tokenizer: Tokenizer, spec: TokenizerSpec) -> list[str]:
    """Return names of 1, 2, … words of one token each, up to the longest that fits."""
    room = spec.max_name_tokens + 1 - len(tokenizer.encode("dog" + spec.suffix))
    return [" ".join(["dog", "cat"][i % 2] for i in range(length)) for length in range(1, room + 1)]


def _both(
    batches: Iterable[T], encode: Callable[[T], Floats], reference: Callable[[T], Floats]
) -> tuple[Floats, Floats]:
    """Return the rows (N, D) of both encoders for the same batches."""
    pairs = [(encode(batch), reference(batch)) for batch in batches]
    return np.concatenate([rows for rows, _ in pairs]), np.concatenate([rows for _, rows in pairs])


def _images(prompted: PromptedCLIP, pixels: Floats) -> Floats:
    rows: Floats = prompted.encode_images(torch.from_numpy(pixels)).cpu().numpy()
    return rows


def _pixels(image: Path | int, spec: Preprocess) -> Floats:
    if isinstance(image, int):
        return self_test_pixels(spec, image)
    try:
        return decode_image(image, spec)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from None


def _padded(tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return tokens as one array (N, longest), zeros behind each row."""
    padded = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    for row, ids in zip(padded, tokens, strict=True):
        row[: len(ids)] = ids
    return padded
