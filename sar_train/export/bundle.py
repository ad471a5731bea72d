"""Write a bundle: graphs, bank, tokenizer and manifest, checked before the folder gets its name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from sar_infer.bank import ClassBank, Images
from sar_infer.bank.edits import utc_now
from sar_infer.bundle.manifest import (
    BANK,
    HEAD,
    IMAGE_ENCODER,
    NAME_ENCODER,
    SCHEMA_VERSION,
    STATISTICS,
    TOKENIZER,
    Manifest,
    Parity,
    Provenance,
    SelfTestVector,
)
from sar_infer.bundle.writing import seal, staged
from sar_infer.bundle_check import verify_bundle
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.storage.files import write_file
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text import TokenizerSpec
from sar_train.export import tokenizer
from sar_train.export.compact import write_graph
from sar_train.export.image_encoder import export_image_encoder
from sar_train.export.layout import PromptLayout, layout, tokenizer_spec
from sar_train.export.name_encoder import export_name_encoder
from sar_train.export.parity import compare, compare_answers
from sar_train.export.refuse import refuse
from sar_train.export.source import ExportSource
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import versions

SELF_TEST_SEED = 2024
MOST_NAMES = 1000
"""Phrases to compare with torch; of a longer list, as many at even steps."""


def export_bundle(
    source: ExportSource,
    out: Path,
    *,
    command: str,
    photos: Sequence[Path] = (),
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build a bundle, check it and move it into place.

    Args:
        source: what to export.
        out: the new folder.
        command: the command line of this export, for the manifest.
        photos: images to compare with torch on; generated ones if there are none.
        overwrite: replace a bundle that is there.
        tell: called with lines of progress.

    Raises:
        ExportError: a check failed or the folder could not be written; the disk is as it was.
        ConfigError: ``out`` exists.
        ClassNameError: a class name does not fit.
        ImageError: one of ``photos`` cannot be read.
    """
    placed = layout(source.prompted)
    spec = tokenizer_spec(source.backbone.text, placed)
    with staged(out, overwrite=overwrite) as folder:
        tell("writing the graphs")
        write_graph(folder / IMAGE_ENCODER, export_image_encoder(source.prompted))
        write_graph(folder / NAME_ENCODER, export_name_encoder(source.prompted, placed))
        tell(f"encoding {len(source.phrases):,} class names")
        merges = tokenizer.merges_text(spec.end_token)
        digest = encoder_digest(source, placed, spec, merges)
        self_test = _self_test(source)
        bank = make_bank(source, digest, Images(images_digest(source.prompted), self_test.embedding))
        bank.save(folder / BANK)
        if head := source.head(digest):
            head.save(folder / HEAD)
        if statistics := source.class_statistics(digest):
            statistics.save(folder / STATISTICS)
        write_file(folder / TOKENIZER, tokenizer.compress(merges))
        tell("comparing with torch")
        names = _sample([phrase for phrases in source.phrases.values() for phrase in phrases])
        parity = compare(folder, source.prompted, spec, bank.embeddings, photos=photos, names=names)
        manifest = dataclasses.replace(
            _manifest(source, placed, spec, digest, parity, self_test, command),
            head=HEAD if head else None,
            statistics=STATISTICS if statistics else None,
        )
        manifest = seal(folder, manifest, bank)
        tell("opening the bundle")
        refuse(*verify_bundle(folder))
        if head:
            compare_answers(folder, source.prompted, head)
    return manifest


def images_digest(prompted: PromptedCLIP) -> str:
    """Return the digest of how images are embedded: weights, visual prompts and preprocessing.

    It does not depend on the graph's file, which another PyTorch writes differently.
    """
    prompts = prompted.image_prompts()
    inserted = {} if prompts is None else prompts.image
    tensors = [
        [at, *(_value(value) if isinstance(value, Tensor) else repr(value) for value in vars(item).values())]
        for at, item in sorted(inserted.items())
    ]
    backbone = prompted.backbone
    return canonical_digest([backbone.weights_digest, tensors, dataclasses.asdict(backbone.preprocess)])


def make_bank(source: ExportSource, digest: str, images: Images) -> ClassBank:
    """Return the bank of all class names; a name with several phrases gets the direction of their mean."""
    flat = [phrase for phrases in source.phrases.values() for phrase in phrases]
    rows = source.prompted.embed(flat).cpu().split([len(p) for p in source.phrases.values()])
    means = torch.nn.functional.normalize(torch.stack([phrase_rows.mean(0) for phrase_rows in rows]), dim=-1)
    phrases = {name: tuple(texts) for name, texts in source.phrases.items() if tuple(texts) != (name,)}
    return ClassBank.of(
        tuple(source.phrases),
        means.numpy(),
        digest,
        phrases=phrases,
        images=images,
        provenance={"origin": "sar-export"},
    )


def _manifest(
    source: ExportSource,
    placed: PromptLayout,
    spec: TokenizerSpec,
    digest: str,
    parity: Parity,
    self_test: SelfTestVector,
    command: str,
) -> Manifest:
    """Return the manifest before sealing, which adds the list of files."""
    backbone = source.backbone
    return Manifest(
        schema_version=SCHEMA_VERSION,
        min_reader=SCHEMA_VERSION,
        backbone=backbone.name,
        weights_digest=backbone.weights_digest,
        method=source.method,
        template=placed.template,
        regularisers=source.regularisers,
        embed_dim=backbone.embed_dim,
        logit_scale=backbone.logit_scale,
        logit_bias=backbone.logit_bias,
        preprocess=backbone.preprocess,
        tokenizer=spec,
        encoder_digest=digest,
        files={},
        quality=dataclasses.replace(source.quality, parity=parity),
        provenance=Provenance(utc_now(), command, _versions(), source.licences),
        self_test=self_test,
        **_confidence(source),
    )


def _confidence(source: ExportSource) -> dict[str, Any]:
    """Return the fields of the manifest that turn logits into scores, unknown and prediction sets."""
    fitted = source.confidence
    if fitted is None:
        return {}
    return {
        "temperature": fitted.temperature,
        "thresholds": fitted.thresholds,
        "conformal": fitted.conformal,
        "calibrated": source.calibrated,
        "calibrated_for": source.branch if source.calibrated else None,
    }


def _sample(names: Sequence[str]) -> Sequence[str]:
    return names[:: -(-len(names) // MOST_NAMES)]


def _self_test(source: ExportSource) -> SelfTestVector:
    pixels = self_test_pixels(source.backbone.preprocess, SELF_TEST_SEED)
    (row,) = source.prompted.encode_images(torch.from_numpy(pixels[None])).tolist()
    return SelfTestVector(SELF_TEST_SEED, tuple(float(f"{value:.9g}") for value in row))


def _versions() -> dict[str, str]:
    exporter = {"onnx": onnx.__version__, "onnxscript": version("onnxscript"), "onnxruntime": onnxruntime.__version__}
    return versions() | exporter | {"Pillow": version("Pillow")}  # which decodes and resizes at run time


def encoder_digest(source: ExportSource, placed: PromptLayout, spec: TokenizerSpec, merges: bytes) -> str:
    """Return the SHA-256 over all that decides an embedding: weights, method, its tensors and settings, tokenizer.

    It does not depend on the graphs. The hand-crafted template counts if the method uses it.
    """
    prompted = source.prompted
    return canonical_digest(
        {
            "weights": prompted.backbone.weights_digest,
            "method": source.method,
            "settings": dict(source.settings),
            "template": placed.template,
            "tensors": {name: _value(tensor) for name, tensor in prompted.method.state_dict().items()},
            "tokenizer": dataclasses.asdict(spec),
            "merges": hashlib.sha256(merges).hexdigest(),
        }
    )


def _value(tensor: Tensor) -> list[object]:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return [list(tensor.shape), str(tensor.dtype), hashlib.sha256(data).hexdigest()]
