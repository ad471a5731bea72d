"""One interface for both kinds of data that training reads: photos, and features made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.data.counted import ProgressCallback
from sar_train.data.feature_set import FeatureSet, Rows
from sar_train.data.feature_source import OUR_SPLIT, FeatureSource
from sar_train.data.features import load_features
from sar_train.data.open_photos import open_photos
from sar_train.data.photo_source import PhotoSource
from sar_train.data.photos import SPLITS, Split, SplitOrigin
from sar_train.data.readable import without_unreadable
from sar_train.data.shots import Shots

__all__ = [
    "DEMO",
    "DEMO_FILE",
    "FeatureSource",
    "PhotoOptions",
    "PhotoSource",
    "Source",
    "open_source",
    "to_feature_set",
]

DEMO = "demo"
DEMO_FILE = Path(__file__).parents[1] / "assets" / "caltech101_sar-mini.safetensors"


class Source(Protocol):
    """Labelled image features of three splits.

    Attributes:
        name: of the dataset.
        class_names: C names, by label.
        template: hand-crafted prompt with ``{}``.
        published_split: whether these are the classes of a dataset that papers report base-to-new on, so that this is
            what is run by default.
        split_origin: whether the splits are those of papers, came with the data, or were drawn here.
        warnings: what the user should know, one line each.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def template(self) -> str: ...  # noqa: D102
    @property
    def published_split(self) -> bool: ...  # noqa: D102
    @property
    def split_origin(self) -> SplitOrigin: ...  # noqa: D102
    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102

    def draw(self, shots: int, seed: int) -> Shots:
        """CoOp's draw of training and validation rows."""

    def labels(self, split: Split) -> Tensor:
        """(N,) int64 labels of all rows of a split."""

    def paths(self, split: Split) -> tuple[str, ...] | None:
        """Relative paths of the photos, None where there are only features."""

    def features(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, V, D) unit float32 rows, all of the split for None; V views for training rows, else 1."""

    def plain(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, D): the plain view of each row."""


@dataclass(frozen=True)
class PhotoOptions:
    """How photos are read.

    Attributes:
        cache_dir: where image features, draws and splits that are ours are kept between runs; None keeps them in
            memory.
        tell: gets a line now and then while photos are encoded.
        allow_missing: go on without the photos that a published split names but that are not there.
        skip_unreadable: decode everything once and leave out what fails, in place of stopping at it.
    """

    cache_dir: Path | None = None
    tell: ProgressCallback = lambda text: None
    allow_missing: bool = False
    skip_unreadable: bool = False


def open_source(
    spec: str,
    data_root: Path | None,
    backbone: Backbone,
    shots: int,
    seed: int,
    views: int = 1,
    options: PhotoOptions = PhotoOptions(),
    *,
    whole: bool = False,
) -> FeatureSource | PhotoSource:
    """Open whatever a user names.

    Args:
        spec: ``demo``, a feature file (``.safetensors``), a list (``.csv``, ``.jsonl``), a folder, or the name of a
            dataset. With ``data_root`` a dataset's name goes before a file or folder of that name, and folders and
            lists are looked for below it too (``pacs/photo``).
        data_root: the folder that holds datasets by name.
        backbone: encodes the photos, or must have made the features.
        shots: K; photos beyond them are held out where there is no published split.
        seed: of that choice and of the random views.
        views: V, the plain view and V - 1 random ones of each training photo.
        options: for photos.
        whole: to be judged on alone, as a target of cross-dataset or domain generalisation: photos have only a test
            split, that of the data where it has one of its own, else all photos. A feature file stays as it is.

    Raises:
        DataError: nothing of that name, or what is there cannot be used.
    """
    path = Path(spec)
    if spec == DEMO or path.suffix == ".safetensors":
        features = load_features(DEMO_FILE if spec == DEMO else path)
        features.require(backbone)
        return FeatureSource(features)
    dataset = open_photos(
        spec,
        data_root,
        shots,
        seed,
        allow_missing=options.allow_missing,
        whole=whole,
        cache_dir=options.cache_dir,
    )
    if options.skip_unreadable:
        dataset = without_unreadable(dataset, backbone.preprocess)
    return PhotoSource(dataset, backbone, views, seed, options.cache_dir, tell=options.tell)


def to_feature_set(source: FeatureSource | PhotoSource, provenance: Mapping[str, str] | None = None) -> FeatureSet:
    """All rows of a source, plain views, ready for `features.save_features`; photos are encoded where needed.

    Raises:
        DataError: a photo cannot be read.
    """
    if isinstance(source, FeatureSource):
        return source.feature_set
    train, val, test = (Rows(source.plain(split), source.labels(split)) for split in SPLITS)
    ours = {OUR_SPLIT: "\n".join(source.warnings)} if source.published_split and source.split_origin == "ours" else {}
    return FeatureSet(
        dataset=source.name,
        template=source.template,
        class_names=source.class_names,
        backbone=source.backbone.name,
        weights_digest=source.backbone.weights_digest,
        preprocess=source.backbone.preprocess,
        published_split=source.published_split,
        train=train,
        val=val,
        test=test,
        provenance={**(provenance or {}), **ours},
    )
