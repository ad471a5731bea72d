"""Folders of Hugging Face's library `datasets`: written by ``save_to_disk``, or a hub snapshot with Parquet files.

The encoded photos in them are unpacked once, unchanged, into the cache folder, where they are read like any others.
Nothing is downloaded, and the library's own cache is not used.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_infer.errors import install
from sar_train.data.dataset import DataOptions, Dataset, Split
from sar_train.data.readers.base import SPLIT_NAMES, Reader, files_in, readers
from sar_train.errors import DataError

FOLDER = "huggingface"
INDEX = "index.json"
PREFERRED_LABELS = ("label", "labels", "fine_label", "class")
_ROWS = 64
"""Rows that are in memory at once."""
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_SHARD = re.compile(r"(?P<split>[A-Za-z]+)(?:-\d{5}-of-\d{5})?.*\.parquet")


@readers.register("hugging-face")
class HuggingFace(Reader):
    """Splits are recognised by their names, the columns of photos and of labels by their types."""

    words = "saved by Hugging Face's datasets"

    def recognises(self, path: Path) -> bool:
        """Return True if a folder was written by ``save_to_disk`` or holds Parquet files as hub snapshots do."""
        return path.is_dir() and bool(_saved(path) or _parquet(path))

    def read(self, path: Path, options: DataOptions) -> Dataset:
        """Unpack the photos and return them.

        Raises:
            DataError: the library is missing, no cache folder, no column of photos or of labels, a split of an unknown
                name, a photo without bytes, or a folder that cannot be read or written.
        """
        if options.cache_dir is None:
            raise DataError(f"{path}: its photos have to be unpacked; give a folder for them with --cache-dir")
        unpacked = _unpack(path, options.cache_dir)
        paths: dict[Split, dict[str, list[Path]]] = {}
        try:
            for split, photo, label in json.loads((unpacked / INDEX).read_text(encoding="utf-8"))["photos"]:
                paths.setdefault(split, {}).setdefault(label, []).append(unpacked / photo)
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{unpacked / INDEX}: damaged; remove {unpacked}, it is made again from {path}") from None
        return Dataset.from_paths(path.resolve().name, unpacked, paths)


def _unpack(root: Path, cache_dir: Path) -> Path:
    """Return the folder of the photos as files; write them unless they were written before."""
    files = sorted(file for file in map(Path, files_in(root)) if file.suffix in (".arrow", ".parquet", ".json"))
    listing = "\n".join(f"{file.relative_to(root)}\0{(s := file.stat()).st_size}\0{s.st_mtime_ns}" for file in files)
    digest = hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()[:16]
    unpacked = cache_dir / FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]', '_', root.resolve().name)[:60]}-{digest}"
    if (unpacked / INDEX).is_file():
        return unpacked
    temporary = unpacked.with_name(f".{unpacked.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        _write(root, temporary)
        temporary.rename(unpacked)
    except OSError as error:
        if not (unpacked / INDEX).is_file():  # another process has not unpacked it meanwhile
            reason = error.strerror or str(error)
            raise DataError(
                f"{unpacked}: {root} cannot be unpacked there ({reason}); free space or choose --cache-dir"
            ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return unpacked


def _write(root: Path, folder: Path) -> None:
    """Write the photos as files, and an index of them, into an empty folder."""
    photos: list[tuple[Split, str, str]] = []
    written: Counter[Split] = Counter()
    for title, (image, label), names, batches in _shards(root):
        split = SPLIT_NAMES.get(title.lower())
        if split is None:
            raise DataError(f"{root}: expected splits called train, validation and test, got {title!r:.40}")
        (folder / split).mkdir(exist_ok=True)
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            photo = f"{root}: photo {number} of {title}"
            value = row[label]
            is_class = isinstance(value, int) and 0 <= value < len(names) if names else isinstance(value, int | str)
            if not is_class:
                raise DataError(f"{photo} has the label {value!r:.40}, which is not a class")
            content = _content(row[image], root, photo)
            suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), ".img")
            path = f"{split}/{written[split]:07}{suffix}"
            written[split] += 1
            (folder / path).write_bytes(content)
            photos.append((split, path, names[value] if names else str(value)))
    (folder / INDEX).write_text(json.dumps({"photos": photos}), encoding="utf-8")


def _content(image: Any, root: Path, title: str) -> bytes:
    """Return the bytes of a photo, which may be stored as a path; only a path below the folder is followed."""
    if isinstance(image, dict) and image.get("bytes"):
        return bytes(image["bytes"])
    path = image.get("path") if isinstance(image, dict) else None
    if not isinstance(path, str) or not (root / path).is_file():
        raise DataError(f"{title} has neither bytes nor a file that exists ({path!r:.80})")
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise DataError(f"{title} is a file elsewhere ({path!r:.80}); save the dataset again, which packs its photos")
    return (root / path).read_bytes()


def _shards(root: Path) -> Iterator[tuple[str, tuple[str, str], Sequence[str] | None, Iterable[Any]]]:
    """Yield the splits that a folder holds, shard by shard.

    Each is its name, the columns of photos and of labels, the class names where labels are numbers, and these columns
    in Arrow's batches, with the photos still encoded.

    Raises:
        DataError: the library is missing, or the folder cannot be read.
    """
    try:
        import datasets
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{root}: reading it needs the package datasets: {install('hf')}") from None
    if _saved(root):
        try:
            saved = datasets.load_from_disk(str(root))
        except Exception as error:  # a damaged folder makes the library raise almost anything
            raise DataError(f"{root}: cannot be read by the library datasets ({error})") from None
        for name, split in saved.items() if isinstance(saved, dict) else [(str(saved.split or "train"), saved)]:
            columns = _columns(split.features, root)
            rows = split.select_columns(list(columns)).with_format("arrow")
            yield name, columns, getattr(split.features[columns[1]], "names", None), rows.iter(_ROWS)
        return
    for path in _parquet(root):
        match = _SHARD.fullmatch(path.name)
        try:
            file = pyarrow.parquet.ParquetFile(path)
            features = datasets.Features.from_arrow_schema(file.schema_arrow)
        except Exception as error:  # as for a damaged folder
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
        names = [match["split"] if match else "", path.parent.name]
        name = next((name for name in names if name.lower() in SPLIT_NAMES), "train")
        columns = _columns(features, root)
        yield (
            name,
            columns,
            getattr(features[columns[1]], "names", None),
            file.iter_batches(_ROWS, columns=list(columns)),
        )


def _columns(features: Mapping[str, Any], root: Path) -> tuple[str, str]:
    """Return the names of the column of photos and of the column of labels.

    Raises:
        DataError: none or several that may be meant.
    """
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"] or [name for name in kinds if name == "image"]
    preferred = [name for name in PREFERRED_LABELS if name in kinds]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"] or preferred
    if len(labels) > 1:
        labels = [name for name in preferred if name in labels][:1]
    if len(images) != 1 or len(labels) != 1:
        got = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise DataError(
            f"{root}: expected one column of images and one of labels (ClassLabel, or called label), got {got}"
        )
    return images[0], labels[0]


def _saved(root: Path) -> bool:
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def _parquet(root: Path) -> list[Path]:
    """Return the shards in ``data/``, else in the folder itself, else in folders named after splits."""
    for folders in ([root / "data"], [root], [root / name for name in SPLIT_NAMES]):
        if files := sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.parquet")):
            return files
    return []
