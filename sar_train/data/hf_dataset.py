"""Folders of Hugging Face's library `datasets`: written by ``save_to_disk``, or a hub snapshot with Parquet files.

The encoded photos in them are unpacked once, as they are, into the cache folder, where they are read like any others.
Nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from sar_train.data.folder import SPLIT_FOLDERS, assemble
from sar_train.data.hf_parts import columns, parts
from sar_train.data.photos import PhotoDataset, Split
from sar_train.data.split_cache import digest
from sar_train.errors import DataError

FOLDER = "huggingface"
INDEX = "index.json"
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def load_hf_dataset(
    root: Path, shots: int, seed: int, *, whole: bool = False, cache_dir: Path | None = None
) -> PhotoDataset:
    """Open such a folder; its splits are told by their names.

    Args:
        root: the folder.
        shots: K, 0 for as many as there are.
        seed: decides which photos are held out, where there is no test split.
        whole: to be judged on alone: the photos of the split test, all photos where there is none.
        cache_dir: where the photos are unpacked to.

    Raises:
        DataError: the library is missing, no cache folder, no column of images or of labels, a split of an unknown
            name, a photo without bytes, or a folder that cannot be read or written.
    """
    if cache_dir is None:
        raise DataError(f"{root}: its photos have to be unpacked; say with --cache-dir where to")
    unpacked = _unpack(root, cache_dir)
    splits: dict[Split, dict[str, list[Path]]] = {}
    try:
        for split, path, label in json.loads((unpacked / INDEX).read_text(encoding="utf-8"))["photos"]:
            splits.setdefault(split, {}).setdefault(label, []).append(unpacked / path)
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{unpacked / INDEX}: damaged; remove {unpacked}, it is made again from {root}") from None
    if "train" not in splits and not whole:
        raise DataError(f"{root}: no split train, got {', '.join(splits)}; only a target of evaluation can do without")
    return assemble(root.resolve().name, unpacked, splits, shots, seed, whole=whole, cache_dir=cache_dir)


def survey(root: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Rows by split and the class names, where the folder says them, without unpacking anything.

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
    """Where the photos of a folder lie as files, written now unless they were before."""
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
            if not (place / INDEX).is_file():  # else another process was faster
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
    """The photos as files, and an index of them, in a folder that is still empty."""
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
                raise DataError(f"{where} has the label {value!r:.40}, which is no class")
            data = (content or {}).get("bytes") or _linked(content, root, where)
            path = f"{split}/{written[split]:07}{_suffix(data)}"
            written[split] += 1
            (folder / path).write_bytes(data)
            photos.append((split, path, names[value] if names else str(value)))
    content = {"version": 1, "photos": photos}
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


def _linked(content: Any, root: Path, where: str) -> bytes:
    """Bytes of a photo that is kept as a path; none but a path below the folder is followed."""
    path = content.get("path") if isinstance(content, dict) else None
    if not isinstance(path, str) or not (root / path).is_file():
        raise DataError(f"{where} has neither bytes nor a file that exists ({path!r:.80})")
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where} is a file elsewhere ({path!r:.80}); save the dataset again, which packs its photos")
    return (root / path).read_bytes()


def _suffix(data: bytes) -> str:
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".img")
