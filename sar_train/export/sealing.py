"""Complete the folder of a new bundle: tokenizer, bank, self-test, manifest; opened and checked before it is named."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from sar_infer.bank import ClassBank, Images
from sar_infer.bundle.manifest import (
    BANK,
    SCHEMA_VERSION,
    TOKENIZER,
    TOKENIZER_JSON,
    Manifest,
    Provenance,
    SelfTestVector,
)
from sar_infer.bundle.writing import seal
from sar_infer.encoders.parity import Check, checks
from sar_infer.storage.files import write_file
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer
from sar_train.errors import ExportError

SELF_TEST_SEED = 2024


def write_tokenizer(folder: Path, spec: TokenizerSpec, vocabulary: bytes) -> Tokenizer | JsonTokenizer:
    """Write CLIP's merges, or a ``tokenizer.json``, and return what the run time makes of it.

    Raises:
        BundleError: It is damaged.
    """
    if spec.kind == "clip-bpe":
        write_file(folder / TOKENIZER, gzip.compress(vocabulary, 9, mtime=0))
        return Tokenizer.open(folder / TOKENIZER)
    write_file(folder / TOKENIZER_JSON, vocabulary)
    return JsonTokenizer.open(folder / TOKENIZER_JSON, spec.clean)


def complete(
    folder: Path,
    phrases: Mapping[str, Sequence[str]],
    means: npt.NDArray[np.float32],
    *,
    images_digest: str,
    self_test: npt.NDArray[np.float32],
    maker: tuple[str, str],
    versions: Mapping[str, str],
    licences: Mapping[str, str],
    **about: Any,
) -> Manifest:
    """Write bank, card and manifest, open the bundle, and check what its graphs compute.

    Args:
        folder: Has the graphs and the tokenizer.
        phrases: The texts of each class of the bank.
        means: (C, D) directions of their means.
        images_digest: Of how photos are embedded.
        self_test: (D,) unit row of the image encoder for the image of `SELF_TEST_SEED`.
        maker: The command, and its whole line.
        versions: Of the packages that took part.
        licences: Of the parts.
        **about: The other fields of the manifest.

    Raises:
        BundleError: It cannot be opened.
        ExportError: A check failed.
    """
    row = tuple(float(f"{value:.9g}") for value in self_test.tolist())
    own = {name: tuple(texts) for name, texts in phrases.items() if tuple(texts) != (name,)}
    bank = ClassBank.of(
        tuple(phrases),
        means,
        about["encoder_digest"],
        phrases=own,
        images=Images(images_digest, row),
        provenance={"origin": maker[0]},
    )
    bank.save(folder / BANK)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        embed_dim=len(row),
        files={},
        provenance=Provenance("", "", {}, licences),
        self_test=SelfTestVector(SELF_TEST_SEED, row),
        **about,
    )
    installed = {**versions, "onnxruntime": onnxruntime.__version__}  # whose package has several names
    bundle = seal(folder, manifest, bank, maker[1], installed)
    refuse(*checks(bundle))
    return bundle.manifest


def refuse(*checked: Check) -> None:
    """Raise ExportError, before anything is written, if a figure is beyond its bound."""
    if lines := [str(check) for check in checked if not check.passed]:
        raise ExportError(f"{'; '.join(lines)}; nothing was written")
