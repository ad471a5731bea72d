"""Write a bundle: graphs, bank, tokenizer and manifest, checked before the folder gets its name."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from sar_infer.bank import ClassBank, Images
from sar_infer.bank.edits import utc_now
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import (
    BANK,
    CLASS_MODEL,
    IMAGE_ENCODER,
    NAME_ENCODER,
    SCHEMA_VERSION,
    TOKENIZER,
    Manifest,
    Provenance,
    SelfTestVector,
)
from sar_infer.bundle.writing import seal, staged
from sar_infer.encoders.parity import checks
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.storage.files import write_file
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text import TokenizerSpec
from sar_train.errors import ExportError
from sar_train.export.graph import write_graph
from sar_train.export.image_encoder import export_image_encoder
from sar_train.export.name_encoder import PromptLayout, export_name_encoder, layout, tokenizer_spec
from sar_train.export.parity import compare, refuse
from sar_train.export.source import ExportSource
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import versions

SELF_TEST_SEED = 2024
MERGES = 49_152 - 256 - 2
"""Merges that CLIP uses; open_clip's file holds many more."""
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
    placed = layout(source.names)
    spec = tokenizer_spec(source.backbone.text, placed)
    with staged(out, overwrite=overwrite) as folder:
        tell("writing the graphs")
        write_graph(folder / IMAGE_ENCODER, export_image_encoder(source.prompted))
        write_graph(folder / NAME_ENCODER, export_name_encoder(source.names, placed))
        tell(f"encoding {len(source.phrases):,} class names")
        merges = merges_text(spec.end_token)
        digest = encoder_digest(source, placed, spec, merges)
        pixels = torch.from_numpy(self_test_pixels(source.backbone.preprocess, SELF_TEST_SEED)[None])
        (row,) = source.prompted.encode_images(pixels).tolist()
        self_test = SelfTestVector(SELF_TEST_SEED, tuple(float(f"{value:.9g}") for value in row))
        bank = make_bank(source, digest, Images(images_digest(source.prompted), self_test.embedding))
        bank.save(folder / BANK)
        if statistics := source.class_statistics(digest):
            statistics.save(folder / CLASS_MODEL)
        write_file(folder / TOKENIZER, gzip.compress(merges, 9, mtime=0))
        tell("comparing with torch")
        phrases = [phrase for several in source.phrases.values() for phrase in several]
        names = phrases[:: -(-len(phrases) // MOST_NAMES)]
        parity = compare(
            folder, source.prompted, spec, bank.embeddings, photos=photos, names=names, of_names=source.names
        )
        backbone = source.backbone
        packages = {name: version(name) for name in ("onnx", "onnxscript", "Pillow")}
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            backbone=backbone.name,
            weights_digest=backbone.weights_digest,
            method=source.method,
            template=placed.template,
            switched=source.added is not None,
            regularisers=source.regularisers,
            embed_dim=backbone.embed_dim,
            logit_scale=backbone.logit_scale,
            logit_bias=backbone.logit_bias,
            preprocess=backbone.preprocess,
            tokenizer=spec,
            encoder_digest=digest,
            files={},
            quality=dataclasses.replace(source.quality, parity=parity),
            provenance=Provenance(
                utc_now(),
                command,
                versions() | packages | {"onnxruntime": onnxruntime.__version__},
                source.licences,
            ),
            self_test=self_test,
        )
        manifest = seal(folder, manifest, bank)
        tell("opening the bundle")
        refuse(*checks(open_bundle(folder)))
    return manifest


def merges_text(end_token: int) -> bytes:
    """Return the first line of open_clip's vocabulary file and the merges in use, one per line.

    Args:
        end_token: of the tower's tokenizer; token ``512 + r`` is merge ``r``, then come the start and the end token.

    Raises:
        ExportError: the tokenizer has another number of merges.
    """
    if end_token != 512 + MERGES + 1:
        raise ExportError(f"expected a tokenizer with end token {512 + MERGES + 1}, this backbone has {end_token}")
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return b"".join(gzip.decompress(packed).splitlines(keepends=True)[: MERGES + 1])


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
    rows = source.embed().cpu().split([len(phrases) for phrases in source.phrases.values()])
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


def encoder_digest(source: ExportSource, placed: PromptLayout, spec: TokenizerSpec, merges: bytes) -> str:
    """Return the SHA-256 over all that decides an embedding: weights, method, its tensors and settings, tokenizer.

    It does not depend on the graphs. The hand-crafted template counts if the method uses it.
    """
    prompted = source.prompted
    switched = {} if source.added is None else {"switched": sorted(prompted.trained)}
    return canonical_digest(
        {
            "weights": prompted.backbone.weights_digest,
            "method": source.method,
            "settings": dict(source.settings),
            "template": placed.template,
            "tensors": {name: _value(tensor) for name, tensor in prompted.method.state_dict().items()},
            "tokenizer": dataclasses.asdict(spec),
            "merges": hashlib.sha256(merges).hexdigest(),
            **switched,
        }
    )


def _value(tensor: Tensor) -> list[object]:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return [list(tensor.shape), str(tensor.dtype), hashlib.sha256(data).hexdigest()]
