"""Compare what was written with torch, before a bundle is moved into place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Parity, Preprocess
from sar_infer.encoders.encoders import Encoder
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
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, encode_name, token_row
from sar_train.clip.full_text import FullText
from sar_train.errors import ExportError
from sar_train.export.sealing import open_tokenizer, refuse
from sar_train.training.prompted import PromptedCLIP

MOST_NAMES_AT_ONCE = 128
TIE = 1e-6
"""Classes whose cosines differ by less are tied."""

T = TypeVar("T")


def compare(
    folder: Path,
    prompted: PromptedCLIP,
    spec: TokenizerSpec | None,
    bank: Floats,
    *,
    photos: Sequence[Path],
    names: Sequence[str],
    of_names: PromptedCLIP | None = None,
) -> Parity:
    """Measure how far the graphs in ``folder`` are from torch.

    Args:
        folder: has both graphs and the tokenizer.
        prompted: the reference.
        spec: how names become tokens; None without a text tower.
        bank: (C, D) rows to classify images with.
        photos: images to try; generated ones are added to fill every batch size.
        names: class names to try; names of every possible length are added.
        of_names: the reference of names, if it is another one.

    Raises:
        ExportError: a figure misses its bound.
        ImageError: a photo cannot be read.
    """
    width = prompted.backbone.embed_dim
    images: list[Path | int] = [*photos, *range(sum(BATCHES) - len(photos))]
    own = prompted.backbone.preprocess
    pixels = (np.stack([pixels_of(item, own) for item in batch]) for batch in in_batches(images))
    encoder = Encoder(folder / IMAGE_ENCODER, width, "cpu")
    rows, reference = _both(
        pixels,
        lambda batch: encoder.run("pixels", batch),
        lambda batch: prompted.encode_images(torch.from_numpy(batch)).cpu().numpy(),
    )
    cosine = float((rows * reference).sum(1).min())
    agreement = float(same_answer(rows, reference, lambda batch: batch @ bank.T, TIE).mean()) if len(bank) else 1.0
    refuse(
        Check(f"image encoder, least cosine to torch on {len(images)} images", cosine, "at least", MIN_COSINE),
        Check(f"image encoder, share of {len(images)} images with torch's class", agreement, "at least", 1),
    )
    if spec is None:
        return Parity(len(images), cosine, agreement, 0, 0.0)
    tokenizer = open_tokenizer(folder, spec)
    named = Encoder(folder / NAME_ENCODER, width, "cpu")
    tokens = {
        name: token_row(spec, encode_name(tokenizer, spec, name))
        for name in (*names, *names_of_every_length(tokenizer, spec))
    }
    if isinstance(tower := prompted.backbone.tower, FullText):
        texts = [prompted.template.replace("{}", name.replace("_", " ")) for name in tokens]
        for text, row in zip(texts, tokens.values(), strict=True):
            if tower.reference([text])[0].tolist() != row:
                raise ExportError(f"{text!r:.80}: open_clip's tokenizer gives other tokens; nothing was written")

    def encode(batch: Sequence[str]) -> Floats:
        padded = np.zeros((len(batch), max(len(tokens[name]) for name in batch)), dtype=np.int64)
        for row, name in zip(padded, batch, strict=True):
            row[: len(tokens[name])] = tokens[name]
        return named.run("tokens", padded)

    rows, reference = _both(
        in_batches([*tokens], MOST_NAMES_AT_ONCE),
        encode,
        lambda batch: (of_names or prompted).embed(batch).cpu().numpy(),
    )
    difference = largest_difference(rows, reference)
    refuse(Check(f"{NAME_ENCODER}, difference to torch on {len(tokens)} names", difference, "at most", MAX_DIFFERENCE))
    return Parity(len(images), cosine, agreement, len(tokens), difference)


def names_of_every_length(tokenizer: Tokenizer | JsonTokenizer, spec: TokenizerSpec) -> list[str]:
    """Return names of 1, 2, … words, up to the longest that fits; CLIP has one token for each."""
    names = [" ".join(["dog", "cat"][i % 2] for i in range(length)) for length in range(1, spec.max_name_tokens + 1)]
    return [name for name in names if len(tokenizer.encode(spec.prefix + name + spec.suffix)) <= spec.max_name_tokens]


def _both(
    batches: Iterable[T], encode: Callable[[T], Floats], reference: Callable[[T], Floats]
) -> tuple[Floats, Floats]:
    """Return the rows (N, D) of both encoders for the same batches."""
    pairs = [(encode(batch), reference(batch)) for batch in batches]
    return np.concatenate([rows for rows, _ in pairs]), np.concatenate([rows for _, rows in pairs])


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
