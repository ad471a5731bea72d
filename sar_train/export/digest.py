"""What binds banks and heads to an encoder."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text import TokenizerSpec
from sar_train.export.layout import Layout

if TYPE_CHECKING:
    from sar_train.export.source import Source


def encoder_digest(source: Source, placed: Layout, spec: TokenizerSpec, merges: bytes) -> str:
    """SHA-256 over all that decides an embedding: weights, the method with all its tensors and settings, tokenizer.

    Whatever graph the embeddings are computed with. The hand-crafted template counts where it takes part.
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
