"""Embeddings under the hand-crafted prompt, where the bundle brings its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import REFERENCE_ENCODER
from sar_infer.encoders.encoders import NameEncoder
from sar_infer.encoders.scoring import unit_rows
from sar_infer.encoders.sessions import Device
from sar_infer.text.tokenizer import encode_name

Embed = Callable[[Sequence[tuple[str, ...]]], Floats]
"""Unit rows (N, D) for N classes, each given by its phrases."""


def reference_embedder(bundle: Bundle, device: Device = "auto", threads: int | None = None) -> Embed | None:
    """The hand-crafted counterpart of ``Classifier.embed_phrases``; None where the bundle has no reference encoder.

    The function raises ClassNameError for a phrase that does not fit behind the template.
    """
    reference = bundle.manifest.reference
    if reference is None:
        return None
    spec = reference.tokenizer
    encoder = NameEncoder(bundle.path / REFERENCE_ENCODER, bundle.manifest.embed_dim, spec.end_token, device, threads)

    def embed(groups: Sequence[tuple[str, ...]]) -> Floats:
        tokens = [encode_name(bundle.tokenizer, spec, phrase) for group in groups for phrase in group]
        rows = encoder.encode(tokens)
        starts = np.cumsum([0, *map(len, groups)])[:-1]
        return unit_rows(np.add.reduceat(rows, starts, axis=0)) if len(groups) else rows

    return embed
