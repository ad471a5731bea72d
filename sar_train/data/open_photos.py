"""Finding out what a user's word for photos means: a dataset's name, a folder of any known layout, or a list."""

from __future__ import annotations

from pathlib import Path

from sar_train.data import coop_layout
from sar_train.data.folder import load_folder
from sar_train.data.hf_dataset import load_hf_dataset
from sar_train.data.hf_parts import is_hf_dataset
from sar_train.data.layouts import dataset_in, find
from sar_train.data.lists import SUFFIXES, has_metadata, load_list, load_metadata
from sar_train.data.photos import PhotoDataset
from sar_train.errors import DataError


def open_photos(
    spec: str,
    data_root: Path | None,
    shots: int,
    seed: int,
    *,
    allow_missing: bool = False,
    whole: bool = False,
    cache_dir: Path | None = None,
) -> PhotoDataset:
    """Open whatever photos a user names.

    Args:
        spec: a dataset's name, a folder or a list. With ``data_root`` a dataset's name goes before a file or folder of
            that name, and what is not there is looked for below it too (``pacs/photo``).
        data_root: the folder that holds datasets by name.
        shots: K; photos beyond them are held out where there is no split.
        seed: of that choice.
        allow_missing: go on without the photos that a split names but that are not there.
        whole: to be judged on alone, as a target of transfer: only test photos, those of the data's own test split, and
            all photos where the split would be ours.
        cache_dir: where splits that are ours, and photos of packed datasets, are kept between runs.

    Raises:
        DataError: nothing of that name, or what is there cannot be used; without ``whole`` also where there are only
            test photos.
    """
    path, known = Path(spec), find(spec)
    if known and data_root:
        opened = coop_layout.load_dataset(
            known, data_root, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir
        )
        return opened if whole else _trainable(opened)
    if data_root and not path.exists() and (data_root / path).exists():
        path = data_root / path
    if path.is_dir():
        return _open_folder(path, shots, seed, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
    if path.suffix.lower() in SUFFIXES:
        return load_list(path, shots, seed, whole=whole, cache_dir=cache_dir)
    if known:
        raise DataError(f"dataset {known}: say with --data-root which folder holds {coop_layout.LAYOUTS[known].folder}")
    if path.is_file():
        raise DataError(f"{path}: expected a folder, or a .safetensors, .csv or .jsonl file")
    nor = f", nor in {data_root}" if data_root else ""
    if len(path.parts) > 1 or path.suffix:
        raise DataError(f"{path}: no such file or folder{nor}")
    raise DataError(f"{spec}: no such folder{nor}, and no such dataset{coop_layout.nearest(spec)}")


def _open_folder(
    path: Path, shots: int, seed: int, *, allow_missing: bool, whole: bool, cache_dir: Path | None
) -> PhotoDataset:
    inside = dataset_in(path)
    if inside:
        opened = coop_layout.load_dataset(inside, path, allow_missing=allow_missing, whole=whole, cache_dir=cache_dir)
        return opened if whole else _trainable(opened)
    load = load_hf_dataset if is_hf_dataset(path) else load_metadata if has_metadata(path) else load_folder
    return load(path, shots, seed, whole=whole, cache_dir=cache_dir)


def _trainable(dataset: PhotoDataset) -> PhotoDataset:
    if dataset.train:
        return dataset
    raise DataError(
        f"dataset {dataset.name}: has only test photos, nothing can be learned from it; it is a target that prompts "
        "learned elsewhere (imagenet) are judged on"
    )
