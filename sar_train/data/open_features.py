"""Opening features of the data that a user names: a feature file, or photos that the backbone encodes."""

from __future__ import annotations

from pathlib import Path

from sar_train.clip.backbone import Backbone
from sar_train.data.dataset import DEMO, DataOptions
from sar_train.data.feature_file import DEMO_FILE, load_features
from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.open_dataset import open_dataset
from sar_train.data.usable import without_unreadable


def open_features(spec: str, backbone: Backbone, options: DataOptions) -> Features:
    """Open features of the data that a user names.

    Args:
        spec: ``demo``, a feature file (``.safetensors``), or photos: a list (``.csv``, ``.jsonl``), a folder, or the
            name of a dataset, as `open_dataset` finds them.
        backbone: encodes the photos, or must have made the features.
        options: how; a feature file needs none of them.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    path = Path(spec)
    if spec == DEMO or path.suffix == ".safetensors":
        features = load_features(DEMO_FILE if spec == DEMO else path)
        features.require(backbone)
        return features
    dataset = open_dataset(spec, options)
    if options.skip_unreadable:
        dataset = without_unreadable(dataset, backbone.preprocess)
    return PhotoFeatures(dataset, backbone, options.views, options.seed, options.cache_dir, tell=options.tell)
