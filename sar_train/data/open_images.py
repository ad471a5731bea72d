"""Opening the images that a user names: a dataset by name, a folder of any known layout, or a list."""

from __future__ import annotations

from pathlib import Path

from sar_train.data.coop_layout import load_dataset
from sar_train.data.folder import assemble, find_in_folder
from sar_train.data.hf_dataset import find_in_hf_dataset, is_hf_dataset
from sar_train.data.images import DataOptions, ImageDataset
from sar_train.data.layouts import LAYOUTS, dataset_in, find, missing_in, nearest
from sar_train.data.lists import LIST_SUFFIXES, find_in_list, find_in_metadata, has_metadata
from sar_train.errors import DataError


def open_images(spec: str, options: DataOptions, *, whole: bool = False) -> ImageDataset:
    """Open the images that a user names.

    Args:
        spec: a dataset's name, a folder or a list. With a ``data_root`` the name of a dataset takes precedence over a
            file or folder of that name, and what is not there is looked for below it too (``pacs/photo``).
        options: how; views and unreadable images do not matter here.
        whole: True for a target of transfer: only test images, those of the data's own test split, or all images where
            the split would be ours.

    Raises:
        DataError: nothing of that name, or data that cannot be used; without ``whole`` also data with nothing but test
            images.
    """
    path, dataset = locate(spec, options.data_root)
    if dataset:
        allow_missing, cache_dir = options.allow_missing, options.cache_dir
        opened = load_dataset(dataset, path, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
        if not opened.train and not whole:
            raise DataError(
                f"dataset {opened.name}: has only test photos, nothing can be learned from it; it is a target "
                "for prompts that are learned elsewhere (imagenet)"
            )
        return opened
    if path.is_dir() and is_hf_dataset(path):
        found = find_in_hf_dataset(path, options.cache_dir, whole=whole)
    elif path.is_dir():
        found = (find_in_metadata if has_metadata(path) else find_in_folder)(path, whole=whole)
    elif path.suffix.lower() in LIST_SUFFIXES:
        found = find_in_list(path, whole=whole)
    else:
        raise DataError(_nothing_there(spec, path, options.data_root))
    return assemble(found, options, whole=whole)


def missing(spec: str, root: Path | None) -> str:
    """Return a message on images that a user names and that are not there; an empty text if they are.

    Args:
        spec: as for `open_images`.
        root: the folder that holds datasets by name.

    Raises:
        DataError: there is no such dataset.
    """
    path, dataset = locate(spec, root)
    if dataset:
        return missing_in(path, dataset)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in LIST_SUFFIXES):
        return ""
    return _nothing_there(spec, path, root)


def locate(spec: str, root: Path | None) -> tuple[Path, str | None]:
    """Return where images should lie, and the dataset by name that they are."""
    path, known = Path(spec), find(spec)
    if root and known:
        return root, known
    if root and not path.exists() and (root / path).exists():
        path = root / path
    return path, dataset_in(path) if path.is_dir() else None


def _nothing_there(spec: str, path: Path, root: Path | None) -> str:
    known = find(spec)
    if known:
        return f"dataset {known}: give with --data-root the folder that holds {LAYOUTS[known].folder}"
    if path.is_file():
        return f"{path}: expected a folder, or a .safetensors, .csv or .jsonl file"
    nor = f", nor in {root}" if root else ""
    if len(path.parts) > 1 or path.suffix:
        return f"{path}: no such file or folder{nor}"
    raise DataError(f"{spec}: no such folder{nor}, and no such dataset{nearest(spec)}")
