"""The duties of every reader of a layout, those that are registered and the one of the how-to."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.layouts import CLASSES, EXAMPLES, SPLITS, TRAIN, WITHOUT_SPLITS
from support.opened import counts, opened

from sar_train.data.dataset import DataOptions
from sar_train.data.opening import missing
from sar_train.data.readers.base import reader_of, readers
from sar_train.errors import DataError

with_splits = pytest.mark.parametrize("layout", sorted(EXAMPLES.keys() - {*WITHOUT_SPLITS}), indirect=True)
NEW_LAYOUT = Path(__file__).parents[4] / "examples" / "new_layout.py"


@pytest.fixture
def new_layout() -> Iterator[None]:
    """The reader of ``examples/new_layout.py``, as if it lay in ``sar_train/data/readers/``, where it may lie too."""
    if "named-photos" in readers.entries:
        yield
        return
    spec = importlib.util.spec_from_file_location("new_layout", NEW_LAYOUT)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    del readers._entries["named-photos"]


@pytest.fixture(params=[*readers.entries, *sorted(EXAMPLES.keys() - readers.entries.keys())])
def layout(request: pytest.FixtureRequest, new_layout: None) -> str:
    if request.param.startswith("hugging-face"):
        pytest.importorskip("datasets", reason="needs the library datasets")
    assert request.param in EXAMPLES, f"tests/support/layouts.py has no example of the layout {request.param}; add one"
    return str(request.param)


def test_only_its_own_layout_is_recognised(layout: str, tmp_path: Path) -> None:
    path, reader = EXAMPLES[layout](tmp_path / "pets", TRAIN), readers.get(layout.split(maxsplit=1)[0])
    assert type(reader_of(path)) is reader
    recognised = [kind for kind in readers.entries.values() if not kind.last and kind().recognises(path)]
    assert recognised == ([] if reader.last else [reader])
    assert missing(str(path), None) == ""
    assert reader_of(tmp_path / "none") is None


def test_photos_are_read_as_they_lie(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = EXAMPLES[layout](tmp_path / "pets", TRAIN), DataOptions(cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a photo was opened"))
    reader = readers.get(layout.split(maxsplit=1)[0])()
    dataset = reader.read(path, options)
    assert (dataset.class_names, set(dataset.splits)) == (CLASSES, {"train"})
    photos = dataset.photos("train")
    assert [photo.label for photo in photos] == [0] * 4 + [1] * 4
    assert all((dataset.root / photo.path).is_file() for photo in photos)
    assert len(set(photos)) == 8
    assert reader.read(path, options) == dataset


def test_photos_are_held_out_by_shots_and_seed(layout: str, tmp_path: Path) -> None:
    path, cache = EXAMPLES[layout](tmp_path / "pets", TRAIN), tmp_path / "cache"
    dataset = opened(path, 2, 1, cache_dir=cache)
    assert (dataset.name, dataset.published_split) == ("list" if layout == "list" else "pets", False)
    assert (counts(dataset), dataset.split_origin) == ([(2, 1, 1)] * 2, "ours")
    assert opened(path, 2, 2, cache_dir=cache) != dataset == opened(path, 2, 1, cache_dir=cache)
    assert len(opened(path, target=True, cache_dir=cache).photos("test")) == 8


@with_splits
def test_given_splits_are_kept(layout: str, tmp_path: Path) -> None:
    path, cache = EXAMPLES[layout](tmp_path / "pets", SPLITS), tmp_path / "cache"
    dataset = opened(path, 2, cache_dir=cache)
    assert (counts(dataset), dataset.split_origin, dataset.warnings) == ([(4, 2, 3)] * 2, "given", ())
    target = opened(path, target=True, cache_dir=cache)
    assert (counts(target), target.photos("test")) == ([(0, 0, 3)] * 2, dataset.photos("test"))


@with_splits
def test_validation_photos_stand_in_for_test_photos(layout: str, tmp_path: Path) -> None:
    path = EXAMPLES[layout](tmp_path / "pets", {"train": 4, "validation": 2})
    dataset = opened(path, 2, cache_dir=tmp_path / "cache")
    assert counts(dataset) == [(4, 0, 2)] * 2
    assert dataset.warnings == ("no test split: accuracy is measured on the validation photos",)


@pytest.mark.parametrize("layout", sorted(EXAMPLES.keys() - {*WITHOUT_SPLITS, "folder"}), indirect=True)
def test_test_photos_alone_are_only_evaluated(layout: str, tmp_path: Path) -> None:
    path = EXAMPLES[layout](tmp_path / "pets", {"val": 1, "test": 2})
    with pytest.raises(DataError, match="expected a split train, got .*test"):
        opened(path, cache_dir=tmp_path / "cache")
    assert counts(opened(path, target=True, cache_dir=tmp_path / "cache")) == [(0, 0, 2)] * 2


def test_the_reader_of_the_how_to_refuses_other_names(tmp_path: Path, new_layout: None) -> None:
    path = EXAMPLES["named-photos"](tmp_path / "pets", TRAIN)
    (path / "cat_02.png").rename(path / "cat.png")
    with pytest.raises(DataError, match=r"cat\.png: expected a name such as hat_017\.jpg"):
        opened(path)
