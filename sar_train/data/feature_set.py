"""Image features of a dataset's three splits in memory, with labels, names and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sar_infer.artefact.manifest import Preprocess
from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import split_template
from sar_train.data.photos import SPLITS, Split
from sar_train.errors import DataError


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of one split: (N, D) unit float32 rows, and (N,) int64 labels."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Everything that a feature file says; it cannot be built inconsistent.

    Attributes:
        dataset: name for tables and records.
        template: hand-crafted prompt with ``{}``.
        class_names: C names.
        backbone: name of the backbone that made the features.
        weights_digest: of that backbone (`Backbone.weights_digest`).
        preprocess: how photos were prepared.
        published_split: whether the splits are those that papers report on.
        train, val, test: the rows; ``val`` and ``test`` may be empty.
        provenance: licence, source and the like, as text by name.

    Raises:
        DataError: a bad template, shapes that disagree, a label out of range, a row that is not finite or all zero.
    """

    dataset: str
    template: str
    class_names: tuple[str, ...]
    backbone: str
    weights_digest: str
    preprocess: Preprocess
    published_split: bool
    train: Rows
    val: Rows
    test: Rows
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise DataError("no class names: expected at least one")
        if len(self.train.labels) == 0:
            raise DataError("no training rows: expected at least one")
        try:
            split_template(self.template)
        except ValueError as error:
            raise DataError(str(error)) from None
        size = self.train.features.shape[-1]
        for split in SPLITS:
            _check(split, self.rows(split), size, len(self.class_names))

    def rows(self, split: Split) -> Rows:
        """The rows of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def require(self, backbone: Backbone) -> None:
        """Make sure that these features come from a backbone.

        Raises:
            DataError: other weights (both digests are named) or another preprocessing.
        """
        made_with = f"features of {self.dataset} were made with {self.backbone}"
        if self.weights_digest != backbone.weights_digest:
            raise DataError(
                f"{made_with}, weights {self.weights_digest}; this is {backbone.name}, weights "
                f"{backbone.weights_digest}: use that backbone, or make the features again from the photos"
            )
        if self.preprocess != backbone.preprocess:
            raise DataError(
                f"{made_with} and photos prepared by {self.preprocess}; {backbone.name} expects "
                f"{backbone.preprocess}: make the features again from the photos"
            )


def _check(split: Split, rows: Rows, size: int, classes: int) -> None:
    features, labels = rows.features, rows.labels
    if features.ndim != 2 or features.shape != (len(labels), size) or size < 1:
        raise DataError(f"{split}: expected ({len(labels)}, {size}) features, got {tuple(features.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{split}: expected labels 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    norms = features.norm(dim=-1)
    wrong = (~((norms - 1).abs() < 1e-3)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{split}: expected finite rows of unit length, row {row} has length {float(norms[row]):.4g}")
