"""The manifest of a bundle as frozen dataclasses, and its digests.

`sar_train` writes what is defined here and `sar_infer` reads it, so the two cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sar_infer.errors import BundleError, SchemaError
from sar_infer.storage.strict_json import build, read_sealed
from sar_infer.text import TokenizerSpec

SCHEMA_VERSION = 1
"""Increased with every change of the format: unknown fields are refused, so even one that may be absent needs it."""

MANIFEST = "manifest.json"
IMAGE_ENCODER = "image_encoder.onnx"
NAME_ENCODER = "name_encoder.onnx"
BANK = "bank.safetensors"
CLASS_MODEL = "class_model.safetensors"
TOKENIZER = "tokenizer.bpe.gz"
TOKENIZER_JSON = "tokenizer.json"
CARD = "model_card.md"


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the encoder's input once it is turned upright, in words of open_clip's ``PreprocessCfg``.

    Attributes:
        size: Side of the input in pixels.
        resize_mode: How the image is brought to ``size`` x ``size``.
        interpolation: Filter of the resize, as Pillow does it.
        mean: Means of R, G and B, subtracted after the values are scaled to 0..1.
        std: Standard deviations, by which they are then divided.
        fill: Grey level 0..255, under transparency and around an image that does not fill the square.
        crop: How half a pixel is rounded if an odd number of rows or columns is cropped: ``round`` to the even number,
            as open_clip and torchvision do, or ``floor``, as transformers does.
        exif: How EXIF orientation is treated: it is applied before anything else.
    """

    size: int
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: int = 0
    crop: Literal["round", "floor"] = "round"
    exif: Literal["transpose"] = "transpose"


@dataclass(frozen=True)
class FileEntry:
    """Digest and size in bytes of one file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent; a value that the protocol does not have is None."""

    base_accuracy: float | None = None
    new_accuracy: float | None = None
    harmonic_mean: float | None = None


@dataclass(frozen=True)
class Parity:
    """Torch against onnxruntime at export: the smallest cosine, and the share of equal top-1 answers."""

    images: int
    image_min_cosine: float
    top1_agreement: float
    names: int
    name_max_difference: float


@dataclass(frozen=True)
class Variant:
    """A smaller graph of the image encoder, compared with the float32 graph on photos that it was not calibrated on.

    Attributes:
        file: Its name in the bundle.
        photos: How many they were.
        min_cosine: The smallest cosine between both graphs' rows.
        mean_cosine: The mean of these cosines.
        top1_agreement: Share of photos, 0..1, with the same best class of the bundle's bank; without classes, each
            photo is a class.
        speedup: Time of the float32 graph over its own, one photo at a time, one thread, where it was made.
        self_test_cosine: Cosine between the manifest's self-test vector and the one that this graph gave there.
        processor: Kind of processor there, such as ``x86-64 with VNNI``, on which the figures of INT8 depend; None if
            the system does not report it.
    """

    file: str
    photos: int
    min_cosine: float
    mean_cosine: float
    top1_agreement: float
    speedup: float
    self_test_cosine: float
    processor: str | None = None


@dataclass(frozen=True)
class Quality:
    """The measured quality of a bundle, and what it was measured on; ``tables`` holds further named results."""

    dataset: str | None = None
    protocol: str | None = None
    shots: int | None = None
    seeds: tuple[int, ...] = ()
    metrics: Scores = Scores()
    zero_shot: Scores = Scores()
    parity: Parity | None = None
    notes: tuple[str, ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """When and how a bundle was made, and the licences of its parts."""

    created: str
    command: str
    versions: Mapping[str, str]
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SelfTestVector:
    """The self-test: an image given by a seed, and the unit vector (D,) that the image encoder must give for it."""

    seed: int
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything that the run time needs to know about a bundle.

    Attributes:
        schema_version: Version of the format.
        backbone: open_clip's name of the model, or timm's after ``timm/``.
        weights_digest: SHA-256 over its weights.
        method: The method that made the prompt, or ``handcrafted``.
        template: The hand-crafted prompt, if it takes part in embedding a name.
        switched: The trained classes have the prompt of ``method``, names that are added the hand-crafted one.
        regularisers: Weights by name.
        embed_dim: D, the length of an embedding.
        logit_scale: Multiplier of the cosine (about 100 for CLIP), not its logarithm.
        preprocess: How an image becomes input.
        tokenizer: How a name becomes input; None if the model has no text tower, and classes are known by photos only.
        encoder_digest: Binds banks and class models: over weights, method and tokenizer, never a graph file.
        files: Every other file of the folder.
        quality: Measured quality of the bundle.
        provenance: When and how the bundle was made.
        self_test: The self-test.
        logit_bias: Added to the scaled cosine, if the model has a bias.
        precisions: Smaller graphs of the image encoder, by ``fp16`` and ``int8``.
        digest: SHA-256 of the canonical JSON of all other fields: the bundle's identity.
    """

    schema_version: int
    backbone: str
    weights_digest: str
    method: str
    template: str | None
    regularisers: Mapping[str, float]
    embed_dim: int
    logit_scale: float
    preprocess: Preprocess
    tokenizer: TokenizerSpec | None
    encoder_digest: str
    files: Mapping[str, FileEntry]
    quality: Quality
    provenance: Provenance
    self_test: SelfTestVector
    logit_bias: float | None = None
    switched: bool = False
    precisions: Mapping[str, Variant] = field(default_factory=dict)
    digest: str = ""

    @property
    def precision(self) -> str:
        """Return the precision of the image encoder: ``fp16`` of a published tower in float16, else ``fp32``."""
        imported = self.quality.tables.get("import")
        return "fp16" if isinstance(imported, Mapping) and imported.get("precision") == "fp16" else "fp32"

    def sealed(self) -> Manifest:
        """Return the manifest as ``parse`` would read it, with ``digest`` filled in.

        Raises:
            BundleError: A field has the wrong type, or is not a finite number.
        """
        manifest: Manifest = build(type(self), read_sealed(self.dump(), MANIFEST)[0], MANIFEST)
        return dataclasses.replace(manifest, digest=read_sealed(manifest.dump(), MANIFEST)[1])

    def dump(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str, source: str = MANIFEST) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            SchemaError: It has another version.
            BundleError: The text is not JSON, a field is missing, unknown or of the wrong type, or the digest does
                not match.
        """
        data, digest = read_sealed(text, source)
        if (version := data.get("schema_version")) != SCHEMA_VERSION:
            raise SchemaError(
                f"{source}: expected schema_version {SCHEMA_VERSION}, got {version!r:.80}; upgrade sar-clip, or export "
                "the bundle again"
            )
        manifest: Manifest = build(cls, data, source)
        if manifest.digest != digest:
            raise BundleError(f"{source}: content does not match its digest; the file was changed after export")
        return manifest


def file_entry(path: Path) -> FileEntry:
    """Return digest and size of a file, which is read in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(digest, path.stat().st_size)
