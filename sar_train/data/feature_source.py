"""Image features made before, as training reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sar_train.data.feature_set import FeatureSet
from sar_train.data.photos import Split, SplitOrigin
from sar_train.data.shots import Shots, few_shot

OUR_SPLIT = "our split"
"""Key of a feature file's provenance that says that its split was drawn here, not published."""


@dataclass(frozen=True)
class FeatureSource:
    """A `Source` that reads a feature set; there is one view of everything."""

    feature_set: FeatureSet

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.feature_set.dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, by label."""
        return self.feature_set.class_names

    @property
    def template(self) -> str:
        """The dataset's hand-crafted template."""
        return self.feature_set.template

    @property
    def published_split(self) -> bool:
        """Whether the splits are those that papers report on."""
        return self.feature_set.published_split

    @property
    def split_origin(self) -> SplitOrigin:
        """Whether the splits are those of papers, or were drawn where the file was made; else they came with it."""
        if OUR_SPLIT in self.feature_set.provenance:
            return "ours"
        return "published" if self.feature_set.published_split else "given"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the photos' source warned of, where the split is not the published one."""
        return tuple(self.feature_set.provenance.get(OUR_SPLIT, "").splitlines())

    def draw(self, shots: int, seed: int) -> Shots:
        """CoOp's draw of training and validation rows."""
        return few_shot(self.labels("train").tolist(), self.labels("val").tolist(), shots, seed)

    def labels(self, split: Split) -> Tensor:
        """(N,) int64 labels of all rows of a split."""
        return self.feature_set.rows(split).labels

    def paths(self, split: Split) -> None:  # noqa: ARG002
        """There are no photos."""
        return

    def features(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, 1, D) unit float32 rows."""
        return self.plain(split, indices)[:, None]

    def plain(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, D) unit float32 rows."""
        rows = self.feature_set.rows(split).features
        return rows if indices is None else rows[indices if isinstance(indices, Tensor) else list(indices)]
