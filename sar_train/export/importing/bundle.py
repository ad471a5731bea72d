"""Write a bundle of published towers, with two checks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle, bundle_name
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Manifest, Quality
from sar_infer.encoders.encoders import NameEncoder
from sar_infer.encoders.gate import shipped_photos
from sar_infer.encoders.parity import MIN_COSINE, Check
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.images.prefetch import decode_image
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text.names import Phrases
from sar_infer.text.tokenizer import token_row
from sar_train.errors import ConfigError, ExportError
from sar_train.export.importing.graphs import IMAGE_INPUTS, TEXT_INPUTS, Published, read_graph, write_wrapped
from sar_train.export.importing.preprocessing import read_preprocess
from sar_train.export.importing.sources import Towers, section
from sar_train.export.importing.tokens import NO_TOKEN, read_tokenizer, takes_mask
from sar_train.export.sealing import SELF_TEST_SEED, complete, encoders, refuse, write_tokenizer
from sar_train.training.versions import versions

_LEAST_CORRECT = 5
"""Of 14 photos: chance alone gives four or more in 15 of 1,000 cases."""
_LENGTHS = {"clip": 77, "siglip": 64, "siglip2": 64}
"""Positions of text towers whose configuration leaves out transformers' default."""
_MASKED_LENGTH = 77
"""Positions of a tower that does not see the padding and takes more."""
_SIGLIP_BIAS = -10.0
"""The bias that training starts from; no layout publishes the trained one, and it moves no probability here."""


def import_bundle(
    towers: Towers,
    folder: Path,
    *,
    template: str,
    classes: Phrases,
    logit_scale: float,
    check: bool,
    command: str,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a bundle into an empty folder, and check it.

    Args:
        towers: The published files.
        folder: Is empty.
        template: Text with ``{}`` for the class name.
        classes: Names of the bank, and the texts to embed for each.
        logit_scale: Multiplier of the cosine.
        check: End with an error if photos and names do not agree.
        command: The command line, for the manifest.
        tell: Called with lines of progress.

    Raises:
        ConfigError: A file is missing or not understood; the message names what.
        ExportError: A check failed.
        InputError: A file cannot be read.
        ClassNameError: A class name does not fit.
    """
    if template.count("{}") != 1:
        raise ConfigError(f"template {template!r}: expected exactly one {{}} for the class name")
    if classes and towers.text is None:
        raise ConfigError("--classes: there is no text tower, so classes are known by photos only")
    preprocess = read_preprocess(towers.images.json(towers.preprocess), f"{towers.images.label}: {towers.preprocess}")
    config, photos = towers.texts.json(towers.config, optional=True), shipped_photos()
    tell(f"image tower {towers.image}")
    image, text, spec, vocabulary = read_graph(towers.images, towers.image, IMAGE_INPUTS), None, None, b""
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in image.model.graph.initializer)
    pixels = [self_test_pixels(preprocess, SELF_TEST_SEED)]
    pixels += [decode_image(path, preprocess) for path in photos.values()]
    published = write_wrapped(folder / IMAGE_ENCODER, image, "pixels", np.stack(pixels))
    if towers.text is not None:
        tell(f"text tower {towers.text}")
        text = read_graph(towers.texts, towers.text, TEXT_INPUTS)
        hides_padding = bool(text.mask) and takes_mask(towers)
        length = _length(text, config, hides_padding=hides_padding)
        vocabulary, spec, padded = read_tokenizer(towers, template, length)
        write_tokenizer(folder, spec, vocabulary)
    weights = canonical_digest([image.digest, text and text.digest])
    encoded = {
        "weights": weights,
        "outputs": [image.output.name, text and text.output.name],
        "preprocess": dataclasses.asdict(preprocess),
        "template": template,
        "tokenizer": spec and dataclasses.asdict(spec),
        "vocabulary": spec and hashlib.sha256(vocabulary).hexdigest(),
    }
    has_bias = "init_logit_bias" in config or str(config.get("model_type", "")).startswith("siglip")
    licences = {source.label: source.licence() for source in (towers.images, towers.texts)}
    embedder = encoders(
        folder,
        {f"towers of {label}" if stated else label: stated or "none stated" for label, stated in licences.items()},
        backbone=bundle_name(towers.images.label),
        weights_digest=weights,
        method="handcrafted" if text else "photos",
        template=template if text else None,
        regularisers={},
        embed_dim=published.shape[1],
        logit_scale=logit_scale,
        logit_bias=_SIGLIP_BIAS if has_bias else None,
        preprocess=preprocess,
        tokenizer=spec,
        encoder_digest=canonical_digest(encoded),
    )
    rows = np.concatenate([embedder.embed_inputs([one]) for one in pixels])
    refuse(_parity(towers.image, rows, published))
    table: dict[str, Any] = {"precision": "fp16" if half else "fp32"}
    if text is not None:
        names = _write_text(embedder.bundle, text, [*photos], hides_padding=hides_padding, padded=padded)
        if check:
            table |= {"photos": len(photos), "nearest to their own name": _agreement(rows[1:], names)}
    tell("opening the bundle")
    note = f"published ONNX towers, {towers.layout}; the logit scale is not the trained one, which is not published"
    return complete(
        embedder.bundle,
        classes,
        embedder.embed_phrases([*classes.values()]),
        images_digest=canonical_digest([image.digest, image.output.name, dataclasses.asdict(preprocess)]),
        self_test=rows[0],
        quality=Quality(notes=(note,), tables={"import": table}),
        maker=("sar-bundle import", command),
        versions=versions(("sar-clip", "numpy", "onnx", "tokenizers", "Pillow")),
    )


def _write_text(bundle: Bundle, text: Published, names: list[str], *, hides_padding: bool, padded: bool) -> Floats:
    """Wrap the text tower, compare it with the published one on names, and return their unit rows (N, D)."""
    spec, dim, path = bundle.spec, bundle.manifest.embed_dim, bundle.path / NAME_ENCODER
    ids = [bundle.encode_name(name) for name in names]
    tokens = np.array([token_row(spec, one) for one in ids], np.int64)
    published = write_wrapped(path, text, "tokens", tokens, spec.end_token if hides_padding else NO_TOKEN)
    if published.shape[1] != dim:
        raise ConfigError(
            f"{text.name}: output {text.output.name} has {published.shape[1]} numbers, the image tower's {dim}; an "
            "output before the projection, or towers of two models"
        )
    rows = NameEncoder(path, dim, "cpu", spec=spec).encode(ids)
    refuse(_parity(text.name, rows, published))
    if not padded:
        other = dataclasses.replace(spec, pad_token=spec.end_token if spec.pad_token != spec.end_token else 0)
        moved = NameEncoder(path, dim, "cpu", spec=other).encode(ids)
        if not float((rows * moved).sum(1).min()) >= MIN_COSINE:
            raise ConfigError(
                f"no configuration states the padding, and {text.name} reads it; add tokenizer_config.json with "
                "pad_token next to the tokenizer"
            )
    return rows


def _length(tower: Published, config: Mapping[str, Any], *, hides_padding: bool) -> int:
    """Return the positions of a text tower: the graph's own, or what the configuration states."""
    axis, own = tower.port.shape[1], section(config, "text_cfg") or section(config, "text_config") or config
    default = _LENGTHS.get(str(config.get("model_type")))
    stated = own.get("context_length", own.get("max_position_embeddings", default))
    if isinstance(axis, int):
        return axis
    if hides_padding:
        return min(stated, _MASKED_LENGTH) if type(stated) is int else _MASKED_LENGTH
    if type(stated) is not int:
        raise ConfigError(f"{tower.name}: takes any length, and no config.json states max_position_embeddings")
    return stated


def _parity(what: str, rows: Floats, published: Floats) -> Check:
    """Return the check that unit rows (N, D) are those of the published graph."""
    cosine = float((rows * published).sum(1).min())
    return Check(f"{what}, least cosine to the published graph on {len(rows)} items", cosine, "at least", MIN_COSINE)


def _agreement(images: Floats, names: Floats) -> int:
    """Return how many of the shipped photos (N, D) are nearest to their own name (N, D).

    Raises:
        ExportError: So few that chance reaches it.
    """
    correct = int(((images @ names.T).argmax(1) == np.arange(len(images))).sum())
    if correct < _LEAST_CORRECT:
        raise ExportError(
            f"the towers do not agree: {correct} of {len(images)} shipped photos are nearest to their own name, which "
            "chance reaches; likely causes: the padding of names, an output that is not the projected embedding, or "
            "towers of two models; add --no-check for towers of other things"
        )
    return correct
