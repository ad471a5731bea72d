"""Compare what was written with torch, before a bundle is moved into place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import NAME_ENCODER, Parity, Preprocess
from sar_infer.encoders.embedder import Embedder
from sar_infer.encoders.parity import (
    BATCHES,
    MAX_DIFFERENCE,
    MIN_COSINE,
    Check,
    in_batches,
    largest_difference,
    same_answer,
)
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.errors import ImageError
from sar_infer.images.prefetch import decode_image
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, token_row
from sar_train.clip.full_text import FullText
from sar_train.errors import ExportError
from sar_train.export.sealing import refuse
from sar_train.export.source import ExportSource

TIE = 1e-6
"""Classes whose cosines differ by less are tied."""


def compare(
    embedder: Embedder, source: ExportSource, bank: Floats, *, photos: Sequence[Path], names: Sequence[str]
) -> Parity:
    """Measure how far the graphs of a bundle are from torch.

    Args:
        embedder: runs the graphs.
        source: the reference.
        bank: (C, D) rows to classify images with.
        photos: images to try; generated ones are added to fill every batch size.
        names: class names to try; names of every possible length are added.

    Raises:
        ExportError: a figure misses its bound.
        ImageError: a photo cannot be read.
    """
    backbone, bundle = source.backbone, embedder.bundle
    images: list[Path | int] = [*photos, *range(sum(BATCHES) - len(photos))]
    pairs = []
    for batch in in_batches(images):
        pixels = np.stack([pixels_of(image, backbone.preprocess) for image in batch])
        pairs.append(
            (embedder.embed_inputs([pixels]), source.prompted.encode_images(torch.from_numpy(pixels)).cpu().numpy())
        )
    rows, reference = map(np.concatenate, zip(*pairs, strict=True))
    cosine = float((rows * reference).sum(1).min())
    agreement = float(same_answer(rows, reference, lambda batch: batch @ bank.T, TIE).mean()) if len(bank) else 1.0
    refuse(
        Check(f"image encoder, least cosine to torch on {len(images)} images", cosine, "at least", MIN_COSINE),
        Check(f"image encoder, share of {len(images)} images with torch's class", agreement, "at least", 1),
    )
    if (spec := bundle.manifest.tokenizer) is None:
        return Parity(len(images), cosine, agreement, 0, 0.0)
    every = list(dict.fromkeys([*names, *names_of_every_length(bundle.tokenizer, spec)]))
    if isinstance(tower := backbone.tower, FullText):
        for name in every:
            text = source.prompted.template.replace("{}", name.replace("_", " "))
            if tower.reference([text])[0].tolist() != token_row(spec, bundle.encode_name(name)):
                raise ExportError(f"{text!r:.80}: open_clip's tokenizer gives other tokens; nothing was written")
    difference = largest_difference(embedder.embed_names(every), source.names.embed(every).cpu().numpy())
    refuse(Check(f"{NAME_ENCODER}, difference to torch on {len(every)} names", difference, "at most", MAX_DIFFERENCE))
    return Parity(len(images), cosine, agreement, len(every), difference)


def names_of_every_length(tokenizer: Tokenizer | JsonTokenizer, spec: TokenizerSpec) -> list[str]:
    """Return names of 1, 2, … words, up to the longest that fits; CLIP has one token for each."""
    names = [" ".join(["dog", "cat"][i % 2] for i in range(length)) for length in range(1, spec.max_name_tokens + 1)]
    return [name for name in names if len(tokenizer.encode(spec.prefix + name + spec.suffix)) <= spec.max_name_tokens]


def pixels_of(image: Path | int, spec: Preprocess) -> Floats:
    """Return the input (3, S, S) of a photo, or of the generated image of a seed.

    Raises:
        ImageError: the photo cannot be read; the message names it.
    """
    if isinstance(image, int):
        return self_test_pixels(spec, image)
    try:
        return decode_image(image, spec)
    except ImageError as error:
        raise ImageError(f"{image}: {error}", error.kind) from None
