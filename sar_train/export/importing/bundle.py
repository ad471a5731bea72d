"""Write a bundle of published towers, with two checks before the folder gets its name."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import bundle_name
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Manifest, Preprocess, Quality
from sar_infer.bundle.writing import link_or_copy, staged
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder, unit_rows
from sar_infer.encoders.parity import MIN_COSINE
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.images.prefetch import decode_image
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text import TokenizerSpec
from sar_infer.text.names import Phrases
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, encode_name, token_row
from sar_train.errors import ConfigError
from sar_train.export.importing.checks import agreement, parity, published_rows, shipped_photos
from sar_train.export.importing.graphs import IMAGE_INPUTS, TEXT_INPUTS, Published, read_graph, write_wrapped
from sar_train.export.importing.preprocessing import read_preprocess
from sar_train.export.importing.sources import Towers, section
from sar_train.export.importing.tokens import NO_TOKEN, read_tokenizer, takes_mask
from sar_train.export.sealing import SELF_TEST_SEED, complete, refuse, write_tokenizer
from sar_train.training.versions import versions

_PUBLISHED = "published"
"""Folder of the published files while the bundle is made."""
_LENGTHS = {"clip": 77, "siglip": 64, "siglip2": 64}
"""Positions of text towers whose configuration leaves out transformers' default."""
_MASKED_LENGTH = 77
"""Positions of a tower that does not see the padding and takes more."""
_SIGLIP_BIAS = -10.0
"""The bias that training starts from; no layout publishes the trained one, and it moves no probability here."""


@dataclass(frozen=True)
class _Text:
    """A text tower that has been wrapped: its tokens, the vocabulary to store, and how names become unit rows."""

    published: Published
    spec: TokenizerSpec
    vocabulary: bytes
    tokenizer: Tokenizer | JsonTokenizer
    encoder: NameEncoder

    def rows(self, phrases: Sequence[str]) -> Floats:
        """Return unit rows (N, D)."""
        return self.encoder.encode([encode_name(self.tokenizer, self.spec, phrase) for phrase in phrases])


@dataclass(frozen=True)
class ImportOptions:
    """Choices of a user.

    Attributes:
        template: Text with ``{}`` for the class name.
        classes: Names of the bank, and the texts to embed for each.
        logit_scale: Multiplier of the cosine.
        check: End with an error if photos and names do not agree.
    """

    template: str
    classes: Phrases = field(default_factory=dict)
    logit_scale: float = 100.0
    check: bool = True


def import_bundle(
    towers: Towers,
    out: Path,
    options: ImportOptions,
    *,
    command: str,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build a bundle, check it and move it into place.

    Args:
        towers: The published files.
        out: The new folder.
        options: Template, classes, scale and check.
        command: The command line, for the manifest.
        overwrite: Replace a bundle that is there.
        tell: Called with lines of progress.

    Raises:
        ConfigError: A file is missing or not understood; the message names what.
        ExportError: A check failed, or the folder could not be written; the disk is as it was.
        InputError: ``out`` exists.
        ClassNameError: A class name does not fit.
    """
    if options.template.count("{}") != 1:
        raise ConfigError(f"template {options.template!r}: expected exactly one {{}} for the class name")
    preprocess = read_preprocess(towers.images.json(towers.preprocess), f"{towers.images.label}: {towers.preprocess}")
    with staged(out, overwrite=overwrite) as folder:
        tell(f"image tower {towers.image}")
        image = read_graph(towers.images, towers.image, IMAGE_INPUTS)
        photos = shipped_photos()
        pixels = [self_test_pixels(preprocess, SELF_TEST_SEED)]
        pixels += [decode_image(path, preprocess) for path in photos.values()]
        published = _wrapped(image, folder, IMAGE_ENCODER, "pixels", np.stack(pixels))
        dim = published.shape[1]
        encoder = ImageEncoder(folder / IMAGE_ENCODER, dim, "cpu")
        rows = np.concatenate([encoder.encode(one[np.newaxis]) for one in pixels])
        refuse(parity(towers.image, rows, published))
        text, table = None, dict[str, Any](precision=image.precision)
        if towers.text is not None:
            tell(f"text tower {towers.text}")
            text = _text(towers, towers.text, options.template, folder, [*photos], dim)
            if options.check:
                correct = agreement(rows[1:], text.rows([*photos]))
                table |= {"photos": len(photos), "nearest to their own name": correct}
        shutil.rmtree(folder / _PUBLISHED)
        tell("opening the bundle")
        note = f"published ONNX towers, {towers.layout}; the logit scale is not the trained one, which is not published"
        return complete(
            folder,
            options.classes,
            _means(text, options.classes, dim),
            images_digest=canonical_digest([image.digest, image.output.name, dataclasses.asdict(preprocess)]),
            self_test=rows[0],
            maker=("sar-bundle import", command),
            versions=versions(("sar-clip", "numpy", "onnx", "tokenizers", "Pillow")),
            licences=_licences(towers),
            logit_scale=options.logit_scale,
            quality=Quality(notes=(note,), tables={"import": table}),
            **_identity(towers, image, text, preprocess, options.template),
        )


def _wrapped(
    tower: Published, folder: Path, file: str, port: str, items: npt.NDArray[Any], end_token: int = NO_TOKEN
) -> Floats:
    """Write a tower's graph and return unit rows of the published one, which runs on copies of its files alone."""
    copies = folder / _PUBLISHED / port
    copies.mkdir(parents=True)
    for path in tower.files:
        link_or_copy(path, copies / path.name)
    write_wrapped(folder / file, tower, port, end_token)
    return published_rows(tower, copies / tower.files[0].name, items, end_token)


def _text(towers: Towers, graph: str, template: str, folder: Path, names: Sequence[str], dim: int) -> _Text:
    """Wrap the text tower, and compare it with the published one on names."""
    published = read_graph(towers.texts, graph, TEXT_INPUTS)
    hides_padding = bool(published.mask) and takes_mask(towers)
    length = _length(published, towers.texts.json(towers.config), hides_padding=hides_padding)
    vocabulary, spec, padded = read_tokenizer(towers, template, length)
    tokenizer = write_tokenizer(folder, spec, vocabulary)
    ids = [encode_name(tokenizer, spec, name) for name in names]
    tokens = np.array([token_row(spec, one) for one in ids], np.int64)
    end_token = spec.end_token if hides_padding else NO_TOKEN
    reference = _wrapped(published, folder, NAME_ENCODER, "tokens", tokens, end_token)
    if reference.shape[1] != dim:
        raise ConfigError(
            f"{graph}: output {published.output.name} has {reference.shape[1]} numbers, the image tower's {dim}; an "
            "output before the projection, or towers of two models"
        )
    text = _Text(published, spec, vocabulary, tokenizer, NameEncoder(folder / NAME_ENCODER, dim, "cpu", spec=spec))
    rows = text.rows(names)
    refuse(parity(graph, rows, reference))
    if not padded:
        other = dataclasses.replace(spec, pad_token=spec.end_token if spec.pad_token != spec.end_token else 0)
        moved = NameEncoder(folder / NAME_ENCODER, dim, "cpu", spec=other).encode(ids)
        if not float((rows * moved).sum(1).min()) >= MIN_COSINE:
            raise ConfigError(
                f"{towers.texts.label}: no configuration states the padding, and {graph} reads it; add "
                "tokenizer_config.json with pad_token next to the tokenizer"
            )
    return text


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


def _identity(
    towers: Towers, image: Published, text: _Text | None, preprocess: Preprocess, template: str
) -> dict[str, Any]:
    """Return the fields of the manifest that decide an embedding, their digest among them."""
    config = towers.texts.json(towers.config)
    has_bias = "init_logit_bias" in config or str(config.get("model_type", "")).startswith("siglip")
    weights = canonical_digest([image.digest, text and text.published.digest])
    encoded = {
        "weights": weights,
        "outputs": [image.output.name, text and text.published.output.name],
        "preprocess": dataclasses.asdict(preprocess),
        "template": template,
        "tokenizer": text and dataclasses.asdict(text.spec),
        "vocabulary": text and hashlib.sha256(text.vocabulary).hexdigest(),
    }
    return {
        "backbone": bundle_name(towers.images.label),
        "weights_digest": weights,
        "method": "handcrafted" if text else "photos",
        "template": template if text else None,
        "regularisers": {},
        "logit_bias": _SIGLIP_BIAS if has_bias else None,
        "preprocess": preprocess,
        "tokenizer": text and text.spec,
        "encoder_digest": canonical_digest(encoded),
    }


def _licences(towers: Towers) -> dict[str, str]:
    stated = {source.label: source.licence() for source in (towers.images, towers.texts)}
    return {f"towers of {label}" if licence else label: licence or "none stated" for label, licence in stated.items()}


def _means(text: _Text | None, classes: Phrases, dim: int) -> Floats:
    """Return (C, D) directions of the mean of each class's phrases."""
    if not classes:
        return np.empty((0, dim), np.float32)
    if text is None:
        raise ConfigError("--classes: there is no text tower, so classes are known by photos only")
    each = iter(text.rows([phrase for phrases in classes.values() for phrase in phrases]))
    return unit_rows(np.stack([np.mean([next(each) for _ in phrases], axis=0) for phrases in classes.values()]))
