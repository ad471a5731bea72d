"""Write a bundle: graphs, bank, tokenizer and manifest, checked before the folder gets its name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sar_infer.bundle.manifest import CLASS_MODEL, IMAGE_ENCODER, NAME_ENCODER, Manifest
from sar_infer.bundle.writing import staged
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text import TokenizerSpec
from sar_train.clip.full_text import FullText, merges_text
from sar_train.export.graph import Floats, write_graph
from sar_train.export.image_encoder import export_image_encoder
from sar_train.export.name_encoder import export_full_text, export_name_encoder, layout, tokenizer_spec
from sar_train.export.parity import compare
from sar_train.export.sealing import SELF_TEST_SEED, complete, encoders, write_tokenizer
from sar_train.export.source import ExportSource
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.versions import PACKAGES, versions

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
    backbone, spec, template, vocabulary = source.backbone, None, None, b""
    if isinstance(tower := backbone.tower, FullText):
        template = source.names.template
        spec, vocabulary = tower.under(template), tower.vocabulary
        text = partial(export_full_text, tower)
    elif tower is not None:
        placed = layout(source.names)
        spec, template = tokenizer_spec(tower, placed), placed.template
        vocabulary, text = merges_text(spec.end_token), partial(export_name_encoder, source.names, placed)
    with staged(out, overwrite=overwrite) as folder:
        tell("writing the graphs")
        write_graph(folder / IMAGE_ENCODER, export_image_encoder(source.prompted))
        if spec is not None:
            write_graph(folder / NAME_ENCODER, text())
            write_tokenizer(folder, spec, vocabulary)
        tell(f"encoding {len(source.phrases):,} class names")
        digest, classes = encoder_digest(source, template, spec, vocabulary), means(source)
        pixels = torch.from_numpy(self_test_pixels(backbone.preprocess, SELF_TEST_SEED)[None])
        if trained := source.trained_classes(digest):
            trained.save(folder / CLASS_MODEL)
        embedder = encoders(
            folder,
            source.licences,
            backbone=backbone.name,
            weights_digest=backbone.weights_digest,
            method=source.method,
            template=template,
            switched=source.added is not None,
            regularisers=source.regularisers,
            embed_dim=backbone.embed_dim,
            logit_scale=backbone.logit_scale,
            logit_bias=backbone.logit_bias,
            preprocess=backbone.preprocess,
            tokenizer=spec,
            encoder_digest=digest,
        )
        tell("comparing with torch")
        phrases = [phrase for several in source.phrases.values() for phrase in several]
        names = phrases[:: -(-len(phrases) // MOST_NAMES) or 1]
        parity = compare(embedder, source, classes, photos=photos, names=names)
        tell("opening the bundle")
        return complete(
            embedder.bundle,
            source.phrases,
            classes,
            images_digest=images_digest(source.prompted),
            self_test=source.prompted.encode_images(pixels)[0].cpu().numpy(),
            quality=dataclasses.replace(source.quality, parity=parity),
            maker=("sar-export", command),
            versions=versions((*PACKAGES, "onnx", "onnxscript", "Pillow")),
        )


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


def means(source: ExportSource) -> Floats:
    """Return (C, D) directions of the mean of each name's phrases."""
    if not source.phrases:
        return np.empty((0, source.backbone.embed_dim), np.float32)
    rows = source.embed().cpu().split([len(phrases) for phrases in source.phrases.values()])
    return normalize(torch.stack([phrase_rows.mean(0) for phrase_rows in rows]), dim=-1).numpy()


def encoder_digest(source: ExportSource, template: str | None, spec: TokenizerSpec | None, vocabulary: bytes) -> str:
    """Return the SHA-256 over all that decides an embedding: weights, method, its tensors and settings, tokenizer.

    It does not depend on the graphs.

    Args:
        source: what is exported.
        template: the hand-crafted template, if the method uses it.
        spec: how names become tokens; None without a text tower.
        vocabulary: of the tokenizer.
    """
    prompted = source.prompted
    switched = {} if source.added is None else {"switched": sorted(prompted.trained)}
    return canonical_digest(
        {
            "weights": prompted.backbone.weights_digest,
            "method": source.method,
            "settings": dict(source.settings),
            "template": template,
            "tensors": {name: _value(tensor) for name, tensor in prompted.method.state_dict().items()},
            "tokenizer": spec and dataclasses.asdict(spec),
            "merges": hashlib.sha256(vocabulary).hexdigest(),
            **switched,
        }
    )


def _value(tensor: Tensor) -> list[object]:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return [list(tensor.shape), str(tensor.dtype), hashlib.sha256(data).hexdigest()]
