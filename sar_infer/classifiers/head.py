"""The class head: a linear layer on image features for some of the bank's classes, which works beside the text branch.

Tensors: ``weight`` F32 (C, D), ``bias`` F32 (C), ``mix`` F64 (), beside the names as ``named_tensors`` stores them.
Metadata: ``format`` = ``sar-head``, and the keys of every such file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats, products
from sar_infer.errors import BundleError
from sar_infer.storage.named_tensors import FileKind, read_only
from sar_infer.storage.tensor_file import Tensors

_KIND = FileKind(
    format="sar-head",
    noun="head",
    version=1,
    tensors={"weight": "F32", "bias": "F32", "mix": "F64"},
    error=BundleError,
    remedy="export the bundle again",
)
_LARGEST = 1e6


@dataclass(frozen=True, eq=False)
class ClassHead:
    """Class names with a row of weights and a bias each; it is checked when built, so that every head is sound.

    Attributes:
        names: C different, non-empty class names.
        weight: (C, D) float32, finite and at most 1e6, so that logits are finite too; read-only.
        bias: (C,) float32, the same.
        mix: Share of the head in the combined logits, 0..1; the text branch has the rest.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose image features it takes.

    Raises:
        BundleError: any of this does not hold.
    """

    names: Sequence[str]
    weight: Floats
    bias: Floats
    mix: float
    encoder_digest: str

    def __post_init__(self) -> None:
        weight, bias, count = self.weight, self.bias, len(self.names)
        if weight.dtype != np.float32 or weight.ndim != 2 or len(weight) != count:
            raise BundleError(f"expected float32 ({count}, D) weight, got {weight.dtype} {weight.shape}")
        if bias.dtype != np.float32 or bias.shape != (count,):
            raise BundleError(f"expected float32 ({count},) bias, got {bias.dtype} {bias.shape}")
        if not count:
            raise BundleError("head without classes")
        _KIND.check_names(self.names)
        wrong = np.flatnonzero(~((np.abs(weight) <= _LARGEST).all(axis=1) & (np.abs(bias) <= _LARGEST)))
        if wrong.size:
            raise BundleError(f"weight or bias of {self.names[wrong[0]]!r} is not finite, or above {_LARGEST:g}")
        if not 0 <= self.mix <= 1:
            raise BundleError(f"expected mix of 0..1, got {self.mix}")
        object.__setattr__(self, "weight", read_only(weight))
        object.__setattr__(self, "bias", read_only(bias))

    def logits(self, features: Floats) -> Floats:
        """Return logits (N, C) of the head alone for image features (N, D), unit rows."""
        return products(features, self.weight) + self.bias

    def combined(self, text_logits: Floats, features: Floats) -> Floats:
        """Return logits (N, C) of both branches, ``(1 - mix) * text_logits + mix * logits(features)``.

        Args:
            text_logits: (N, C) of the text branch, its columns in the order of ``names``.
            features: (N, D), unit rows.
        """
        result: Floats = np.float32(1 - self.mix) * text_logits + np.float32(self.mix) * self.logits(features)
        return result

    def reordered(self, rows: Sequence[int]) -> ClassHead:
        """Return the same head with its classes in another order."""
        order = list(rows)
        names = tuple(self.names[row] for row in order)
        return dataclasses.replace(self, names=names, weight=self.weight[order], bias=self.bias[order])

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part."""
        tensors: Tensors = {"weight": self.weight, "bias": self.bias, "mix": np.array(self.mix, dtype=np.float64)}
        _KIND.save(path, self.names, tensors, self.encoder_digest)

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None) -> ClassHead:
        """Read and check a head file.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: it was written for a newer reader.
            BundleError: it is missing, damaged, no head, or of another encoder.
        """
        stored = _KIND.load(path, encoder_digest)
        weight, bias, mix = (stored.tensors[name] for name in ("weight", "bias", "mix"))
        if mix.shape != ():
            raise BundleError(f"{path}: expected a single mix, got {mix.shape}")
        try:
            return cls(stored.names, weight, bias, float(mix), stored.metadata["encoder_digest"])
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
