"""Folders of Hugging Face's library `datasets`: written by ``save_to_disk``, or a hub snapshot with Parquet files.

The encoded images in them are unpacked once, unchanged, into the cache folder, where they are read like any others.
Nothing is downloaded, and the library's own cache is not used.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_train.data.folder import SPLIT_FOLDERS, FoundImages
from sar_train.data.images import Split
from sar_train.data.split_cache import digest
from sar_train.errors import DataError

FOLDER = "huggingface"
INDEX = "index.json"
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
PREFERRED_LABELS = ("label", "labels", "fine_label", "class")
_SHARD = re.compile(r"(?P<split>[A-Za-z]+)(?:-\d{5}-of-\d{5})?.*\.parquet")


def find_in_hf_dataset(root: Path, cache_dir: Path | None, *, whole: bool = False) -> FoundImages:
    """Unpack the images of such a folder; its splits are recognised by their names.

    Args:
        root: the folder.
        cache_dir: where the images are unpacked to.
        whole: True for a target of evaluation, which may do without the split train.

    Raises:
        DataError: the library is missing, no cache folder, no column of images or of labels, a split of an unknown
            name, an image without bytes, or a folder that cannot be read or written.
    """
    if cache_dir is None:
        raise DataError(f"{root}: its photos have to be unpacked; give a folder for them with --cache-dir")
    unpacked = _unpack(root, cache_dir)
    splits: dict[Split, dict[str, list[Path]]] = {}
    try:
        for split, path, label in json.loads((unpacked / INDEX).read_text(encoding="utf-8"))["photos"]:
            splits.setdefault(split, {}).setdefault(label, []).append(unpacked / path)
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{unpacked / INDEX}: damaged; remove {unpacked}, it is made again from {root}") from None
    if "train" not in splits and not whole:
        raise DataError(f"{root}: expected a split train, got {', '.join(splits)}; only evaluation does without one")
    return FoundImages(root.resolve().name, unpacked, splits)


def survey(root: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the number of rows by split, and the class names where the folder has them, without unpacking anything.

    Raises:
        DataError: the library is missing, or the folder cannot be read.
    """
    rows: dict[str, int] = {}
    names: tuple[str, ...] = ()
    for part in parts(root):
        _, label = columns(part.features, root)
        names = tuple(getattr(part.features[label], "names", None) or names)
        rows[part.split] = rows.get(part.split, 0) + part.count
    return rows, names


def _unpack(root: Path, cache_dir: Path) -> Path:
    """Return the folder of the images as files; write them unless they were written before."""
    files = sorted(
        path for path in root.rglob("*") if path.suffix in (".arrow", ".parquet", ".json") and path.is_file()
    )
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
    key = digest("\n".join(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}" for name, stat in stats))[:16]
    place = cache_dir / FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]', '_', root.resolve().name)[:60]}-{key}"
    if (place / INDEX).is_file():
        return place
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        _write(root, temporary)
        try:
            temporary.rename(place)
        except OSError:
            if not (place / INDEX).is_file():  # another process has not unpacked it meanwhile
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{place}: {root} cannot be unpacked there ({reason}); free space or choose --cache-dir"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _write(root: Path, folder: Path) -> None:
    """Write the images as files, and an index of them, into an empty folder."""
    photos: list[tuple[Split, str, str]] = []
    written: Counter[Split] = Counter()
    for part in parts(root):
        split = SPLIT_FOLDERS.get(part.split.lower())
        if split is None:
            raise DataError(f"{root}: expected splits called train, validation and test, got {part.split!r:.40}")
        image, label = columns(part.features, root)
        names = getattr(part.features[label], "names", None)
        (folder / split).mkdir(exist_ok=True)
        for number, row in enumerate(part.rows(image, label)):
            where = f"{root}: photo {number} of {part.split}"
            content, value = row[image], row[label]
            named = isinstance(value, int) and 0 <= value < len(names) if names else isinstance(value, int | str)
            if not named:
                raise DataError(f"{where} has the label {value!r:.40}, which is not a class")
            data = (content or {}).get("bytes") or _linked(content, root, where)
            path = f"{split}/{written[split]:07}{_suffix(data)}"
            written[split] += 1
            (folder / path).write_bytes(data)
            photos.append((split, path, names[value] if names else str(value)))
    content = {"version": 1, "photos": photos}
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


def _linked(content: Any, root: Path, where: str) -> bytes:
    """Return the bytes of an image that is stored as a path; only a path below the folder is followed."""
    path = content.get("path") if isinstance(content, dict) else None
    if not isinstance(path, str) or not (root / path).is_file():
        raise DataError(f"{where} has neither bytes nor a file that exists ({path!r:.80})")
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where} is a file elsewhere ({path!r:.80}); save the dataset again, which packs its photos")
    return (root / path).read_bytes()


def _suffix(data: bytes) -> str:
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".img")


@dataclass(frozen=True)
class SplitPart:
    """A split, or one shard of it.

    Attributes:
        split: its name.
        features: by column.
        count: rows.
        rows: returns the rows of two columns, images and labels, with the images still encoded.
    """

    split: str
    features: Mapping[str, Any]
    count: int
    rows: Callable[[str, str], Iterator[Mapping[str, Any]]]


def is_hf_dataset(root: Path) -> bool:
    """Return True if a folder was written by ``save_to_disk`` or holds Parquet files as hub snapshots do."""
    return bool(_saved(root) or _parquet(root))


def parts(root: Path) -> Iterator[SplitPart]:
    """Yield the splits that a folder holds, shard by shard.

    Raises:
        DataError: the library is missing, or the folder cannot be read.
    """
    library = _library(root)
    if _saved(root):
        try:
            found = library.load_from_disk(str(root))
        except Exception as error:  # a damaged folder makes the library raise almost anything
            raise DataError(f"{root}: cannot be read by the library datasets ({error})") from None
        for name, part in found.items() if isinstance(found, dict) else [(str(found.split or "train"), found)]:
            yield SplitPart(name, part.features, part.num_rows, functools.partial(_arrow_rows, library, part))
        return
    import pyarrow.parquet

    for path in _parquet(root):
        match = _SHARD.fullmatch(path.name)
        try:
            file = pyarrow.parquet.ParquetFile(path)
            features = library.Features.from_arrow_schema(file.schema_arrow)
        except Exception as error:  # as for a damaged folder
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
        named = [match["split"] if match else "", path.parent.name]
        split = next((name for name in named if name.lower() in SPLIT_FOLDERS), "train")
        yield SplitPart(split, features, file.metadata.num_rows, functools.partial(_parquet_rows, file))


def _arrow_rows(library: Any, part: Any, image: str, label: str) -> Iterator[Mapping[str, Any]]:
    yield from part.select_columns([image, label]).cast_column(image, library.Image(decode=False))


def _parquet_rows(file: Any, image: str, label: str) -> Iterator[Mapping[str, Any]]:
    for batch in file.iter_batches(batch_size=64, columns=[image, label]):
        yield from batch.to_pylist()


def columns(features: Mapping[str, Any], root: Path) -> tuple[str, str]:
    """Return the names of the column of images and of the column of labels."""
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
    """Return the shards in ``data/``, else in the folder itself, else in folders named after splits."""
    for places in ([root / "data"], [root], [root / name for name in SPLIT_FOLDERS]):
        found = sorted(path for place in places if place.is_dir() for path in place.glob("*.parquet"))
        if found:
            return found
    return []
