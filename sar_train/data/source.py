"""One interface for both kinds of data that training reads: photos, and features made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from sar_train.backbone import Backbone
from sar_train.data import coop_layout
from sar_train.data.feature_set import FeatureSet, Rows
from sar_train.data.feature_source import FeatureSource
from sar_train.data.features import load_features
from sar_train.data.folder import load_folder
from sar_train.data.lists import SUFFIXES as LIST_SUFFIXES
from sar_train.data.lists import load_list
from sar_train.data.photo_source import PhotoSource
from sar_train.data.photos import SPLITS, PhotoDataset, Split
from sar_train.data.readable import without_unreadable
from sar_train.errors import DataError

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
        published_split: whether the splits are those that papers report on.
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
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102

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
        cache_dir: where image features are kept between runs; None keeps them in memory.
        progress: show a bar on stderr where that is a terminal.
        allow_missing: go on without the photos that a published split names but that are not there.
        skip_unreadable: decode everything once and leave out what fails, in place of stopping at it.
    """

    cache_dir: Path | None = None
    progress: bool = False
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
) -> FeatureSource | PhotoSource:
    """Open whatever a user names.

    Args:
        spec: ``demo``, a feature file (``.safetensors``), a list (``.csv``, ``.jsonl``), a folder, or the name of a
            dataset. With ``data_root`` a dataset's name goes before a file or folder of that name.
        data_root: the folder that holds datasets by name.
        backbone: encodes the photos, or must have made the features.
        shots: K; photos beyond them are held out where there is no published split.
        seed: of that choice and of the random views.
        views: V, the plain view and V - 1 random ones of each training photo.
        options: for photos.

    Raises:
        DataError: nothing of that name, or what is there cannot be used.
    """
    path = Path(spec)
    if spec == DEMO or path.suffix == ".safetensors":
        features = load_features(DEMO_FILE if spec == DEMO else path)
        features.require(backbone)
        return FeatureSource(features)
    dataset = _open_photos(spec, data_root, shots, seed, allow_missing=options.allow_missing)
    if options.skip_unreadable:
        dataset = without_unreadable(dataset, backbone.preprocess)
    return PhotoSource(dataset, backbone, views, seed, options.cache_dir, progress=options.progress)


def to_feature_set(source: FeatureSource | PhotoSource, provenance: Mapping[str, str] | None = None) -> FeatureSet:
    """All rows of a source, plain views, ready for `features.save_features`; photos are encoded where needed.

    Raises:
        DataError: a photo cannot be read.
    """
    if isinstance(source, FeatureSource):
        return source.feature_set
    train, val, test = (Rows(source.plain(split), source.labels(split)) for split in SPLITS)
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
        provenance=provenance or {},
    )


def _open_photos(spec: str, data_root: Path | None, shots: int, seed: int, *, allow_missing: bool) -> PhotoDataset:
    path, known = Path(spec), coop_layout.find(spec)
    if known and data_root:
        return coop_layout.load_dataset(known, data_root, allow_missing=allow_missing)
    if path.is_dir():
        inside = coop_layout.layout_in(path)
        if inside:
            return coop_layout.load_dataset(inside, path, allow_missing=allow_missing)
        return load_folder(path, shots, seed)
    if path.suffix.lower() in LIST_SUFFIXES:
        return load_list(path, shots, seed)
    if known:
        raise DataError(f"dataset {known}: say with --data-root which folder holds {coop_layout.LAYOUTS[known].folder}")
    if path.is_file():
        raise DataError(f"{path}: expected a folder, or a .safetensors, .csv or .jsonl file")
    if len(path.parts) > 1 or path.suffix:
        raise DataError(f"{path}: no such file or folder")
    return coop_layout.load_dataset(spec, data_root or Path())
