"""The photos and names that graphs are calibrated and judged on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import Preprocess
from sar_infer.bank import ClassInfo
from sar_infer.bundle import Bundle
from sar_infer.errors import ImageError
from sar_infer.images import load_rgb
from sar_infer.preprocess import to_input
from sar_infer.tokenizer import encode_name
from sar_train.errors import ConfigError
from sar_train.nouns import random_words
from sar_train.wordnet import load

Rows = npt.NDArray[np.float32]

CALIBRATION, JUDGING = 128, 1000
"""Photos used for each, at most."""
LEAST = 40
"""Photos without which nothing can be said: 20 in each half."""
MOST_NAMES = 1000
"""Of the bank, and as many nouns."""


@dataclass(frozen=True)
class Photos:
    """Two sets that share no photo."""

    calibration: tuple[Path, ...]
    judging: tuple[Path, ...]


def split(paths: Sequence[Path], root: Path) -> Photos:
    """Photos by a digest of their names below a folder: the same for every run, whatever is added.

    Raises:
        ConfigError: there are fewer than ``LEAST``.
    """
    if len(paths) < LEAST:
        raise ConfigError(
            f"--photos {root}: {len(paths)} photos, expected at least {LEAST} to calibrate and judge with"
        )
    drawn = sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    half = len(drawn) // 2
    return Photos(tuple(drawn[: min(half, CALIBRATION)]), tuple(drawn[half : half + JUDGING]))


def pixels(path: Path, spec: Preprocess) -> Rows:
    """The encoder's input (3, size, size) for a photo.

    Raises:
        ImageError: it cannot be read; names it.
    """
    try:
        return to_input(load_rgb(path, spec.fill), spec)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def name_tokens(bundle: Bundle) -> list[list[int]]:
    """Tokens, without the end token, of phrases that the bundle's bank was made from, and of nouns."""
    phrases = [p for name in bundle.bank.names for p in bundle.bank.info.get(name, ClassInfo()).phrases or (name,)]
    nouns = islice(random_words(load(), random.Random(0)), MOST_NAMES)
    names = [*phrases[:: -(-len(phrases) // MOST_NAMES)], *nouns]
    return [encode_name(bundle.tokenizer, bundle.manifest.tokenizer, name) for name in dict.fromkeys(names)]
