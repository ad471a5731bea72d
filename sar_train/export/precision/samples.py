"""The photos and names that graphs are calibrated and evaluated on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_infer.text.tokenizer import encode_name
from sar_train.errors import ConfigError
from sar_train.novel_names.wordnet import load, random_words

BATCH = 8


def batches(pixels: Sequence[Floats]) -> Iterator[Floats]:
    """Yield stacked pieces (N, 3, size, size) of images (3, size, size)."""
    for start in range(0, len(pixels), BATCH):
        yield np.stack(pixels[start : start + BATCH])


CALIBRATION, JUDGING = 128, 1000
"""The most photos used for each."""
MOST_READ = 5000
"""The most photos that are read, chosen by their names."""
LEAST, LEAST_EACH = 40, 15
"""The fewest photos that are accepted: in all, and in each half."""
MOST_NAMES = 1000
"""The most names from the bank, and the number of nouns."""


@dataclass(frozen=True)
class PhotoSamples:
    """Two sets that share no photo."""

    calibration: tuple[Path, ...]
    judging: tuple[Path, ...]


def split(paths: Sequence[Path], root: object) -> PhotoSamples:
    """Split photos into two halves by one bit of a digest of each file's content.

    So copies of a photo, only one of which is used, are never on both sides, and adding photos moves none of them.

    Args:
        paths: the photos; at most ``MOST_READ`` of them are read.
        root: their name in messages.

    Raises:
        ConfigError: too few of them differ, in all or in a half.
        OSError: one cannot be read.
    """
    chosen = sorted(sorted(paths), key=lambda path: hashlib.sha256(path.name.encode()).digest())[:MOST_READ]
    drawn: dict[bytes, Path] = {}
    for path in chosen:
        with path.open("rb") as stream:
            drawn.setdefault(hashlib.file_digest(stream, "sha256").digest(), path)
    halves = [[drawn[key] for key in sorted(drawn) if key[0] & 1 == side] for side in (0, 1)]
    if len(drawn) < LEAST or min(map(len, halves)) < LEAST_EACH:
        raise ConfigError(
            f"--photos {root}: {len(drawn)} photos that differ, {len(halves[0])} to calibrate and {len(halves[1])} to "
            f"evaluate with; expected at least {LEAST}, and {LEAST_EACH} for each: add photos"
        )
    return PhotoSamples(tuple(halves[0][:CALIBRATION]), tuple(halves[1][:JUDGING]))


def pixels(path: Path, spec: Preprocess) -> Floats:
    """Return the encoder's input (3, size, size) for an image.

    Raises:
        ImageError: it cannot be read; names it.
    """
    try:
        return to_input(load_rgb(path, spec.fill), spec)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def name_tokens(bundle: Bundle) -> list[list[int]]:
    """Return the tokens, without end token, of phrases that the bank was made from, and of nouns."""
    phrases = [phrase for entry in bundle.bank.entries.values() for phrase in entry.texts]
    nouns = islice(random_words(load(), random.Random(0)), MOST_NAMES)
    names = [*phrases[:: -(-len(phrases) // MOST_NAMES)], *nouns]
    return [encode_name(bundle.tokenizer, bundle.manifest.tokenizer, name) for name in dict.fromkeys(names)]
