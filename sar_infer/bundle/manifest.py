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
from sar_infer.storage import READER_VERSION
from sar_infer.storage.strict_json import build, canonical_digest, read_sealed
from sar_infer.text import TokenizerSpec

SCHEMA_VERSION = 3
"""Increased with every change of the format: unknown fields are refused, so even one that may be absent needs it."""

MANIFEST = "manifest.json"
IMAGE_ENCODER = "image_encoder.onnx"
NAME_ENCODER = "name_encoder.onnx"
BANK = "bank.safetensors"
HEAD = "head.safetensors"
STATISTICS = "statistics.safetensors"
TOKENIZER = "tokenizer.bpe.gz"
CARD = "model_card.md"


@dataclass(frozen=True)
class Preprocess:
    """How a decoded image becomes the encoder's input; the vocabulary is open_clip's ``PreprocessCfg``.

    Attributes:
        size: Side of the input in pixels.
        resize_mode: How the image is brought to ``size`` x ``size``.
        interpolation: Filter of the resize, as Pillow does it.
        mean: Means of R, G and B, subtracted after the values are scaled to 0..1.
        std: Standard deviations, by which they are then divided.
        fill: Grey level 0..255, under transparency and beside an image that does not fill the square.
        exif: How EXIF orientation is treated: it is applied before anything else.
        jpeg_margin: In older bundles: how far large JPEGs might be reduced. Nothing uses it.
    """

    size: int
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: int = 0
    exif: Literal["transpose"] = "transpose"
    jpeg_margin: float | None = None


@dataclass(frozen=True)
class Reference:
    """The name encoder of the hand-crafted prompt, ``reference_encoder.onnx``, in older bundles; nothing uses it.

    Attributes:
        template: The hand-crafted prompt, such as ``a photo of a {}.``
        tokenizer: How a name becomes its input; the vocabulary is the bundle's, prefix and suffix are the template's.
    """

    template: str
    tokenizer: TokenizerSpec


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
    """A smaller graph of one encoder, kept because it passed its gate against the fp32 graph.

    Attributes:
        file: Its name in the bundle.
        method: How it was made: weights and activations cast, INT8 with scales found at run time or by calibration.
        samples: Real photos, or names, that both graphs were compared on, none of them used for calibration.
        min_cosine: The smallest cosine between both graphs' rows.
        mean_cosine: The mean of these cosines.
        top1_agreement: Share of samples, 0..1, with the same best class of the bundle's bank; of names, the same
            nearest row.
        speedup: Time of the fp32 graph over its own, one at a time, one thread, where the bundle was made.
        self_test_cosine: Cosine between the manifest's self-test vector and the one that this graph gave when it was
            made; None for names, and if there is no self-test.
        notes: Exceptions that were needed, such as layers that stayed in fp32.
        processor: Kind of processor that these figures were measured on, such as ``x86-64 with VNNI``, on which those
            of INT8 depend; None if it is not known.
    """

    file: str
    method: Literal["cast", "dynamic", "static"]
    samples: int
    min_cosine: float
    mean_cosine: float
    top1_agreement: float
    speedup: float
    self_test_cosine: float | None = None
    notes: tuple[str, ...] = ()
    processor: str | None = None


@dataclass(frozen=True)
class Precision:
    """The graphs of one precision; an encoder without one runs in fp32."""

    image: Variant | None = None
    name: Variant | None = None


@dataclass(frozen=True)
class Calibration:
    """How far scores can be trusted, measured on photos that nothing was fitted on.

    Attributes:
        dataset: Dataset of the photos.
        fitted_on: Held-out photos that temperature, thresholds and conformal quantiles come from.
        measured_on: Photos that the figures below come from; if no others were left, they are a cross-fitted estimate
            on the same photos (``cross_fitted``).
        cross_fitted: See ``measured_on``.
        error_before: Expected calibration error, 15 bins of equal width, 0..1, without the temperature.
        error_after: The same with the temperature.
        nll_before: Mean negative log-likelihood in nats, without the temperature.
        nll_after: The same with the temperature.
        coverage: Share of photos whose conformal set holds the true class, by the coverage asked for (``0.9``).
        set_size: Mean classes in a set, by the same keys.
        unknown_auroc: AUROC of telling known from new classes, by ``score`` and ``energy``; empty if there were no
            photos of new classes.
    """

    dataset: str
    fitted_on: int
    measured_on: int
    cross_fitted: bool
    error_before: float
    error_after: float
    nll_before: float
    nll_after: float
    coverage: Mapping[str, float] = field(default_factory=dict)
    set_size: Mapping[str, float] = field(default_factory=dict)
    unknown_auroc: Mapping[str, float] = field(default_factory=dict)


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
    calibration: Calibration | None = None
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
        min_reader: The oldest reader that understands this bundle.
        backbone: open_clip's name of the model.
        weights_digest: SHA-256 over its weights.
        method: The method that made the prompt, or ``handcrafted``.
        template: The hand-crafted prompt, if it takes part in embedding a name.
        regularisers: Weights by name.
        embed_dim: D, the length of an embedding.
        logit_scale: Multiplier of the cosine (about 100 for CLIP), not its logarithm.
        preprocess: How an image becomes input.
        tokenizer: How a name becomes input.
        encoder_digest: Binds banks and heads: over weights, method and tokenizer, never a graph file.
        files: Every other file of the folder.
        quality: Measured quality of the bundle.
        provenance: When and how the bundle was made.
        logit_bias: Added to the scaled cosine, if the model has a bias.
        self_test: The self-test.
        precisions: Smaller graphs, by ``fp16`` and ``int8``.
        temperature: Divides the logits before the softmax.
        thresholds: An answer is *unknown* if its score is below ``score``, or its energy,
            ``-T logsumexp(logits / T)``, above ``energy``.
        conformal: By coverage (``0.9``), the least score that a class needs to be in the set.
        calibrated: The classes that temperature, thresholds and conformal scores were fitted on; they hold for these
            alone, with the rows of the bundle's bank.
        calibrated_for: The branch that answered when these were fitted; they hold for that branch alone. None if
            nothing was fitted.
        head: ``head.safetensors``, if the bundle has that file.
        statistics: ``statistics.safetensors``, if the bundle has that file.
        reference: Description of ``reference_encoder.onnx``, which older bundles may have.
        digest: SHA-256 of the canonical JSON of all other fields: the bundle's identity.
    """

    schema_version: int
    min_reader: int
    backbone: str
    weights_digest: str
    method: str
    template: str | None
    regularisers: Mapping[str, float]
    embed_dim: int
    logit_scale: float
    preprocess: Preprocess
    tokenizer: TokenizerSpec
    encoder_digest: str
    files: Mapping[str, FileEntry]
    quality: Quality
    provenance: Provenance
    logit_bias: float | None = None
    self_test: SelfTestVector | None = None
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    temperature: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    conformal: Mapping[str, float] = field(default_factory=dict)
    calibrated: tuple[str, ...] = ()
    calibrated_for: Literal["text", "head", "statistics"] | None = None
    head: str | None = None
    statistics: str | None = None
    reference: Reference | None = None
    digest: str = ""

    def sealed(self) -> Manifest:
        """Return the manifest as ``parse`` would read it, of the current schema, with ``digest`` filled in.

        Raises:
            BundleError: A field has the wrong type, or is not a finite number.
        """
        current = dataclasses.replace(self, schema_version=SCHEMA_VERSION, min_reader=SCHEMA_VERSION)
        manifest: Manifest = build(type(self), read_sealed(current.dump(), MANIFEST)[0], MANIFEST)
        return dataclasses.replace(manifest, digest=manifest.content_digest())

    def content_digest(self) -> str:
        """Return the SHA-256 of the canonical JSON of all fields except ``digest``."""
        content = dataclasses.asdict(self)
        del content["digest"]
        return canonical_digest(content)

    def dump(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str, source: str = MANIFEST) -> Manifest:
        """Read ``manifest.json`` of this schema or an older one, whose keys are renamed; ``digest`` stays the file's.

        Raises:
            SchemaError: The bundle needs a newer reader.
            BundleError: The text is not JSON, a field is missing, unknown or of the wrong type, or the digest does
                not match.
        """
        data, digest = read_sealed(text, source)
        needed = data.get("min_reader")
        if isinstance(needed, int) and needed > READER_VERSION:
            raise SchemaError(
                f"{source}: schema {data.get('schema_version')} needs a reader of version {needed} or later, "
                f"this is {READER_VERSION}: upgrade sar-clip"
            )
        manifest: Manifest = build(cls, _current(data, source), source)
        if manifest.digest != digest:
            raise BundleError(f"{source}: content does not match its digest; the file was changed after export")
        return manifest


_RENAMED = {"passport": "quality", "probe": "self_test"}
"""Keys of schema 2 and their names since schema 3."""
_SINCE_3 = (*_RENAMED.values(), "calibrated_for", "statistics")


def _current(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the content of a manifest under the keys of the current schema.

    Raises:
        BundleError: An older manifest has a key that its schema does not know.
    """
    version = data.get("schema_version")
    if not isinstance(version, int) or version >= SCHEMA_VERSION:
        return dict(data)
    if stray := [key for key in _SINCE_3 if key in data]:
        raise BundleError(f"{source}: unknown field {stray[0]}")
    content = {_RENAMED.get(key, key): value for key, value in data.items()}
    if content.get("temperature") is not None or any(
        content.get(key) for key in ("thresholds", "conformal", "calibrated")
    ):
        content["calibrated_for"] = "text" if content.get("head") is None else "head"
    if isinstance(content.get("precisions"), dict):
        content["precisions"] = {name: _current_precision(item) for name, item in content["precisions"].items()}
    return content


def _current_precision(item: Any) -> Any:
    """Return a precision of schema 2 with the key of its variants renamed."""
    if not isinstance(item, dict):
        return item
    return {
        encoder: {"self_test_cosine" if key == "probe_cosine" else key: value for key, value in variant.items()}
        if isinstance(variant, dict)
        else variant
        for encoder, variant in item.items()
    }


def file_entry(path: Path) -> FileEntry:
    """Return digest and size of a file, which is read in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(digest, path.stat().st_size)
