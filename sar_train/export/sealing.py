"""The folder of a new bundle: its encoders, then tokenizer, bank, self-test, manifest; checked before it is named."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, Images
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import (
    BANK,
    SCHEMA_VERSION,
    TOKENIZER,
    TOKENIZER_JSON,
    Manifest,
    Provenance,
    Quality,
    SelfTestVector,
)
from sar_infer.bundle.writing import seal
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.embedder import Embedder
from sar_infer.encoders.parity import Check, checks
from sar_infer.storage.files import write_file
from sar_infer.text import TokenizerSpec
from sar_train.errors import ExportError

SELF_TEST_SEED = 2024


def write_tokenizer(folder: Path, spec: TokenizerSpec, vocabulary: bytes) -> None:
    """Write CLIP's merges, or a ``tokenizer.json``."""
    if spec.kind == "clip-bpe":
        write_file(folder / TOKENIZER, gzip.compress(vocabulary, 9, mtime=0))
    else:
        write_file(folder / TOKENIZER_JSON, vocabulary)


def encoders(folder: Path, licences: Mapping[str, str], **about: Any) -> Embedder:
    """Return the encoders of a bundle without classes, quality and self-test, whose graphs need not be there yet.

    Args:
        folder: Gets graphs and tokenizer.
        licences: Of the parts.
        **about: The other fields of the manifest.
    """
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        files={},
        quality=Quality(),
        provenance=Provenance("", "", {}, licences),
        self_test=SelfTestVector(SELF_TEST_SEED, ()),
        **about,
    )
    bundle = Bundle(folder, manifest, ClassBank(manifest.encoder_digest, manifest.embed_dim))
    return Embedder(bundle, "cpu", None, spin=True, cache=EmbeddingCache(), precision="fp32")


def complete(
    bundle: Bundle,
    phrases: Mapping[str, Sequence[str]],
    means: Floats,
    *,
    images_digest: str,
    self_test: Floats,
    quality: Quality,
    maker: tuple[str, str],
    versions: Mapping[str, str],
) -> Manifest:
    """Write bank, card and manifest, open the bundle, and check what its graphs compute.

    Args:
        bundle: That of `encoders`.
        phrases: The texts of each class of the bank.
        means: (C, D) directions of their means.
        images_digest: Of how photos are embedded.
        self_test: (D,) unit row of the image encoder for the image of `SELF_TEST_SEED`.
        quality: As measured.
        maker: The command, and its whole line.
        versions: Of the packages that took part.

    Raises:
        BundleError: It cannot be opened.
        ExportError: A check failed.
    """
    row = tuple(float(f"{value:.9g}") for value in self_test.tolist())
    bank = ClassBank.of(
        tuple(phrases),
        means,
        bundle.manifest.encoder_digest,
        phrases={name: tuple(texts) for name, texts in phrases.items() if tuple(texts) != (name,)},
        images=Images(images_digest, row),
        provenance={"origin": maker[0]},
    )
    bank.save(bundle.path / BANK)
    manifest = dataclasses.replace(bundle.manifest, quality=quality, self_test=SelfTestVector(SELF_TEST_SEED, row))
    installed = {**versions, "onnxruntime": onnxruntime.__version__}  # whose package has several names
    sealed = seal(bundle.path, manifest, bank, maker[1], installed)
    refuse(*checks(sealed))
    return sealed.manifest


def refuse(*checked: Check) -> None:
    """Raise ExportError, before anything is written, if a figure is beyond its bound."""
    if lines := [str(check) for check in checked if not check.passed]:
        raise ExportError(f"{'; '.join(lines)}; nothing was written")
