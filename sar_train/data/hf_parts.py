"""Reading the folders that Hugging Face's library `datasets` writes, without its cache and without a network."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_train.data.folder import SPLIT_FOLDERS
from sar_train.errors import DataError

PREFERRED_LABELS = ("label", "labels", "fine_label", "class")
_SHARD = re.compile(r"(?P<split>[A-Za-z]+)(?:-\d{5}-of-\d{5})?.*\.parquet")


@dataclass(frozen=True)
class Part:
    """A split, or one shard of it.

    Attributes:
        split: its name.
        features: by column.
        count: rows.
        rows: gives the rows of two columns, of images and of labels, with the images still encoded.
    """

    split: str
    features: Mapping[str, Any]
    count: int
    rows: Callable[[str, str], Iterator[Mapping[str, Any]]]


def is_hf_dataset(root: Path) -> bool:
    """Whether a folder was written by ``save_to_disk`` or holds Parquet files as hub snapshots do."""
    return bool(_saved(root) or _parquet(root))


def parts(root: Path) -> Iterator[Part]:
    """What a folder holds.

    Raises:
        DataError: the library is missing, or the folder cannot be read.
    """
    library = _library(root)
    if _saved(root):
        try:
            found = library.load_from_disk(str(root))
        except Exception as error:  # whatever a damaged folder makes the library raise
            raise DataError(f"{root}: cannot be read by the library datasets ({error})") from None
        for name, part in found.items() if isinstance(found, dict) else [(str(found.split or "train"), found)]:
            yield Part(name, part.features, part.num_rows, functools.partial(_arrow_rows, library, part))
        return
    import pyarrow.parquet

    for path in _parquet(root):
        match = _SHARD.fullmatch(path.name)
        try:
            file = pyarrow.parquet.ParquetFile(path)
            features = library.Features.from_arrow_schema(file.schema_arrow)
        except Exception as error:  # as above
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
        named = [match["split"] if match else "", path.parent.name]
        split = next((name for name in named if name.lower() in SPLIT_FOLDERS), "train")
        yield Part(split, features, file.metadata.num_rows, functools.partial(_parquet_rows, file))


def _arrow_rows(library: Any, part: Any, image: str, label: str) -> Iterator[Mapping[str, Any]]:
    yield from part.select_columns([image, label]).cast_column(image, library.Image(decode=False))


def _parquet_rows(file: Any, image: str, label: str) -> Iterator[Mapping[str, Any]]:
    for batch in file.iter_batches(batch_size=64, columns=[image, label]):
        yield from batch.to_pylist()


def columns(features: Mapping[str, Any], root: Path) -> tuple[str, str]:
    """Names of the column of images and of the column of labels."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if not images and "image" in features:
        images = ["image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"] or [
        n for n in PREFERRED_LABELS if n in kinds
    ]
    if len(labels) > 1:
        labels = [name for name in PREFERRED_LABELS if name in labels][:1]
    if len(images) != 1 or len(labels) != 1:
        got = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise DataError(
            f"{root}: expected one column of images and one of labels (ClassLabel, or called label), got {got}"
        )
    return images[0], labels[0]


def _library(root: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{root}: reading it needs the library datasets: pip install 'sar-clip[hf]'") from None
    return datasets


def _saved(root: Path) -> bool:
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def _parquet(root: Path) -> list[Path]:
    """Shards in ``data/``, else in the folder itself, else in folders called like splits."""
    for places in ([root / "data"], [root], [root / name for name in SPLIT_FOLDERS]):
        found = sorted(path for place in places if place.is_dir() for path in place.glob("*.parquet"))
        if found:
            return found
    return []
