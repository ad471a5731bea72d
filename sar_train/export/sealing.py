"""Complete the folder of a new bundle: tokenizer, self-test, manifest; opened and checked before it gets its name."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank, Images
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import TOKENIZER, TOKENIZER_JSON, Manifest, SelfTestVector
from sar_infer.bundle.writing import seal
from sar_infer.encoders.parity import Check, checks
from sar_infer.storage.files import write_file
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer
from sar_train.errors import ExportError

SELF_TEST_SEED = 2024


def self_test_vector(row: Sequence[float]) -> SelfTestVector:
    """Return the self-test with the image encoder's unit row (D,) for its image."""
    return SelfTestVector(SELF_TEST_SEED, tuple(float(f"{value:.9g}") for value in row))


def write_tokenizer(folder: Path, spec: TokenizerSpec, vocabulary: bytes) -> None:
    """Write CLIP's merges, or a ``tokenizer.json``."""
    if spec.kind == "clip-bpe":
        write_file(folder / TOKENIZER, gzip.compress(vocabulary, 9, mtime=0))
    else:
        write_file(folder / TOKENIZER_JSON, vocabulary)


def open_tokenizer(folder: Path, spec: TokenizerSpec) -> Tokenizer | JsonTokenizer:
    """Open what `write_tokenizer` wrote.

    Raises:
        BundleError: It is damaged.
    """
    if spec.kind == "clip-bpe":
        return Tokenizer.open(folder / TOKENIZER)
    return JsonTokenizer.open(folder / TOKENIZER_JSON, spec.clean)


def make_bank(
    phrases: Mapping[str, Sequence[str]], means: npt.NDArray[np.float32], digest: str, images: Images, command: str
) -> ClassBank:
    """Return the bank of all class names.

    Args:
        phrases: The texts of each class.
        means: (C, D) directions of their means.
        digest: Of the encoder.
        images: How photos are embedded.
        command: The maker.
    """
    own = {name: tuple(texts) for name, texts in phrases.items() if tuple(texts) != (name,)}
    return ClassBank.of(tuple(phrases), means, digest, phrases=own, images=images, provenance={"origin": command})


def complete(folder: Path, manifest: Manifest, bank: ClassBank) -> Manifest:
    """Write card and manifest, open the bundle, and check what its graphs compute.

    Raises:
        BundleError: It cannot be opened.
        ExportError: A check failed.
    """
    manifest = seal(folder, manifest, bank)
    refuse(*checks(open_bundle(folder)))
    return manifest


def refuse(*checked: Check) -> None:
    """Raise ExportError, before anything is written, if a figure is beyond its bound."""
    if lines := [str(check) for check in checked if not check.passed]:
        raise ExportError(f"{'; '.join(lines)}; nothing was written")
