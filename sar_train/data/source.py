"""Open either kind of data that training reads, images or features made in advance, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from sar_train.clip.backbone import Backbone
from sar_train.data.features import OUR_SPLIT, FeatureSet, Rows, load_features
from sar_train.data.image_source import ImageDataSource
from sar_train.data.images import SPLITS, DataOptions
from sar_train.data.open_images import missing as missing_images
from sar_train.data.open_images import open_images
from sar_train.data.usable import without_unreadable

DEMO = "demo"
DEMO_FILE = Path(__file__).parents[1] / "assets" / "caltech101_sar-mini.safetensors"

DataSource: TypeAlias = FeatureSet | ImageDataSource
"""Labelled image features of three splits; either kind has ``name``, ``class_names`` and the like, and gives rows."""


def open_source(spec: str, backbone: Backbone, options: DataOptions, *, whole: bool = False) -> DataSource:
    """Open the data that a user names.

    Args:
        spec: ``demo``, a feature file (``.safetensors``), or images: a list (``.csv``, ``.jsonl``), a folder, or the
            name of a dataset, as `open_images` finds them.
        backbone: encodes the images, or must have made the features.
        options: how; a feature file needs none of them.
        whole: True for a target of cross-dataset or domain generalisation: images have only a test split, that of the
            data where it has one of its own, else all images. A feature file stays as it is.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    path = Path(spec)
    if spec == DEMO or path.suffix == ".safetensors":
        features = load_features(DEMO_FILE if spec == DEMO else path)
        features.require(backbone)
        return features
    dataset = open_images(spec, options, whole=whole)
    if options.skip_unreadable:
        dataset = without_unreadable(dataset, backbone.preprocess)
    return ImageDataSource(dataset, backbone, options.views, options.seed, options.cache_dir, tell=options.tell)


def missing(spec: str, root: Path | None) -> str:
    """Return a message on data that a user names and that are not there; an empty text if they are.

    Only names of files and folders are looked at.

    Raises:
        DataError: there is no such dataset.
    """
    if spec == DEMO or spec.endswith(".safetensors"):
        return "" if spec == DEMO or Path(spec).is_file() else f"{spec}: no such feature file"
    return missing_images(spec, root)


def to_feature_set(source: DataSource, provenance: Mapping[str, str] | None = None) -> FeatureSet:
    """Return all rows of a source, plain views, ready for `save_features`; images are encoded where needed.

    Raises:
        DataError: an image cannot be read.
    """
    if isinstance(source, FeatureSet):
        return source
    train, val, test = (Rows(source.plain(split), source.labels(split)) for split in SPLITS)
    ours = {OUR_SPLIT: "\n".join(source.warnings)} if source.published_split and source.split_origin == "ours" else {}
    return FeatureSet(
        name=source.name,
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
