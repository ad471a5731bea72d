"""Folders written by Hugging Face's library `datasets`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

NAMES = ("cat", "dog")


def encoded(seed: int, form: str = "JPEG") -> bytes:
    """A tiny photo."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), (seed * 37 % 256, seed * 11 % 256, 80)).save(stream, form)
    return stream.getvalue()


def make_dataset(count: int, names: Sequence[str] | None = NAMES, form: str = "JPEG") -> Any:
    """Photos with alternating labels; without names, labels are plain numbers."""
    import datasets

    label = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    content = {
        "image": [{"bytes": encoded(i, form), "path": None} for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features({"image": datasets.Image(), "label": label}))


def to_saved(folder: Path, content: Any) -> Path:
    """By ``save_to_disk``, of one dataset or of several by split."""
    import datasets

    (datasets.DatasetDict(content) if isinstance(content, dict) else content).save_to_disk(str(folder))
    return folder


def to_hub(folder: Path, content: Mapping[str, Any], shards: int = 1) -> Path:
    """As a snapshot of a dataset on the hub has it: ``data/train-00000-of-00001.parquet``."""
    (folder / "data").mkdir(parents=True)
    for split, dataset in content.items():
        for i in range(shards):
            path = folder / "data" / f"{split}-{i:05}-of-{shards:05}.parquet"
            dataset.shard(shards, i).to_parquet(str(path))
    return folder
