"""Write a bundle: graphs, bank, tokenizer and manifest, checked before the folder gets its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from sar_infer.artefact import (
    BANK,
    HEAD,
    IMAGE_ENCODER,
    MANIFEST,
    NAME_ENCODER,
    SCHEMA_VERSION,
    TOKENIZER,
    Manifest,
    Parity,
    Probe,
    Provenance,
    TokenizerSpec,
    file_entry,
)
from sar_infer.bank import ClassBank
from sar_infer.files import write_file
from sar_infer.staging import staged
from sar_train.export import tokenizer
from sar_train.export.compact import compact
from sar_train.export.digest import encoder_digest
from sar_train.export.head import class_head
from sar_train.export.image_encoder import export_image_encoder
from sar_train.export.layout import Layout, layout, tokenizer_spec
from sar_train.export.name_encoder import export_name_encoder
from sar_train.export.parity import compare, compare_answers
from sar_train.export.source import Source
from sar_train.export.verify import Rows, generated_pixels, verify_bundle
from sar_train.record import versions

PROBE_SEED = 2024
MOST_NAMES = 1000
"""Phrases that take part in the comparison with torch; of more, at most as many at even steps."""


def export_bundle(
    source: Source,
    out: Path,
    *,
    command: str,
    photos: Sequence[Path] = (),
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build, check and move into place.

    Args:
        source: what to export.
        out: the new folder.
        command: how this export was asked for, for the manifest.
        photos: pictures for the comparison with torch; without them, generated ones.
        overwrite: replace a bundle that is there.
        tell: is called with a line of progress now and then.

    Raises:
        ExportError: a check failed or the folder could not be written; nothing has changed on the disk.
        ConfigError: ``out`` exists.
        ClassNameError: a class name does not fit.
        ImageError: one of ``photos`` cannot be read.
    """
    placed = layout(source.prompted)
    spec = tokenizer_spec(source.backbone.text, placed)
    with staged(out, overwrite=overwrite) as folder:
        tell(f"encoding {len(source.phrases):,} class names")
        merges = tokenizer.merges_text(spec.end_token)
        digest = encoder_digest(source, placed, spec, merges)
        bank = make_bank(source, digest)
        bank.save(folder / BANK)
        if head := class_head(source.prompted, source.head_names, digest):
            head.save(folder / HEAD)
        write_file(folder / TOKENIZER, tokenizer.compress(merges))
        tell("writing the graphs")
        _write_graph(folder / IMAGE_ENCODER, export_image_encoder(source.prompted))
        _write_graph(folder / NAME_ENCODER, export_name_encoder(source.prompted, placed))
        tell("comparing with torch")
        names = _some([phrase for phrases in source.phrases.values() for phrase in phrases])
        parity = compare(folder, source.prompted, spec, bank.embeddings, photos=photos, names=names)
        manifest = _manifest(source, placed, spec, digest, folder, parity, command)
        write_file(folder / MANIFEST, manifest.dump().encode())
        tell("opening the bundle")
        verify_bundle(folder)
        if head:
            compare_answers(folder, source.prompted, head)
    return manifest


def make_bank(source: Source, digest: str) -> ClassBank:
    """Unit rows of all class names; one with several phrases has the direction of their mean."""
    flat = [phrase for phrases in source.phrases.values() for phrase in phrases]
    rows = source.prompted.embed(flat).cpu().split([len(p) for p in source.phrases.values()])
    means = torch.nn.functional.normalize(torch.stack([part.mean(0) for part in rows]), dim=-1)
    several = {name: list(phrases) for name, phrases in source.phrases.items() if tuple(phrases) != (name,)}
    provenance: dict[str, Any] = {"origin": "sar-export"} | ({"phrases": several} if several else {})
    return ClassBank(tuple(source.phrases), means.numpy(), digest, provenance)


def _manifest(
    source: Source, placed: Layout, spec: TokenizerSpec, digest: str, folder: Path, parity: Parity, command: str
) -> Manifest:
    backbone, files = source.backbone, {path.name: file_entry(path) for path in sorted(folder.iterdir())}
    created = datetime.now(UTC).isoformat(timespec="seconds")
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
        logit_bias=_logit_bias(source),
        preprocess=backbone.preprocess,
        tokenizer=spec,
        encoder_digest=digest,
        files=files,
        passport=dataclasses.replace(source.passport, parity=parity),
        provenance=Provenance(created, command, _versions(), source.licences),
        probe=_probe(source),
        head=HEAD if HEAD in files else None,
    ).sealed()


def _some(names: Sequence[str]) -> Sequence[str]:
    return names[:: -(-len(names) // MOST_NAMES)]


def _write_graph(path: Path, model: onnx.ModelProto) -> None:
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    write_file(path, small.SerializeToString(deterministic=True))


def _probe(source: Source) -> Probe:
    pixels: Rows = generated_pixels(source.backbone.preprocess, PROBE_SEED)
    (row,) = source.prompted.encode_images(torch.from_numpy(pixels[None])).tolist()
    return Probe(PROBE_SEED, tuple(float(f"{value:.9g}") for value in row))


def _logit_bias(source: Source) -> float | None:
    bias = getattr(source.backbone.model, "logit_bias", None)
    return None if bias is None else float(bias)


def _versions() -> dict[str, str]:
    exporter = {"onnx": onnx.__version__, "onnxscript": version("onnxscript"), "onnxruntime": onnxruntime.__version__}
    return versions() | exporter
