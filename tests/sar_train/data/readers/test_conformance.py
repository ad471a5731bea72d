"""The duties of every reader of a layout, those that are registered and the one of the how-to."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.layouts import CLASSES, EXAMPLES
from support.opened import counts, opened

from sar_train.data.check import check
from sar_train.data.dataset import DataOptions, Dataset
from sar_train.data.open_dataset import missing
from sar_train.data.readers.base import Reader, reader_of, readers
from sar_train.errors import DataError

NEW_LAYOUT = Path(__file__).parents[4] / "examples" / "new_layout.py"


@pytest.fixture
def new_layout() -> Iterator[None]:
    """The reader of ``examples/new_layout.py``, as if it lay in ``sar_train/data/readers/``."""
    spec = importlib.util.spec_from_file_location("new_layout", NEW_LAYOUT)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    del readers._entries["named-photos"]


@pytest.fixture(params=[*readers.entries, "named-photos"])
def reader(request: pytest.FixtureRequest, new_layout: None) -> str:
    if request.param == "hugging-face":
        pytest.importorskip("datasets", reason="needs the library datasets")
    assert request.param in EXAMPLES, f"tests/support/layouts.py has no example of the layout {request.param}; add one"
    return str(request.param)


def test_only_its_own_layout_is_recognised(reader: str, tmp_path: Path) -> None:
    path = EXAMPLES[reader](tmp_path / "pets")
    assert type(reader_of(path)) is readers.get(reader)
    assert [name for name, kind in readers.entries.items() if not kind.last and kind().recognises(path)] == (
        [] if readers.get(reader).last else [reader]
    )
    assert missing(str(path), None) == ""
    assert reader_of(tmp_path / "none") is None


def test_photos_are_read_as_they_lie(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = EXAMPLES[reader](tmp_path / "pets"), DataOptions(cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a photo was opened"))
    dataset = readers.get(reader)().read(path, options)
    assert dataset.class_names == CLASSES
    assert set(dataset.splits) == {"train"}
    photos = dataset.photos("train")
    assert [photo.label for photo in photos] == [0] * 4 + [1] * 4
    assert all((dataset.root / photo.path).is_file() for photo in photos)
    assert len(set(photos)) == 8
    assert readers.get(reader)().read(path, options) == dataset


def test_what_all_layouts_share_is_done(reader: str, tmp_path: Path) -> None:
    path, cache = EXAMPLES[reader](tmp_path / "pets"), tmp_path / "cache"
    dataset = opened(path, 2, 1, cache_dir=cache)
    assert (counts(dataset), dataset.split_origin) == ([(2, 1, 1)] * 2, "ours")
    assert opened(path, 2, 2, cache_dir=cache) != dataset == opened(path, 2, 1, cache_dir=cache)
    assert len(opened(path, target=True, cache_dir=cache).photos("test")) == 8
    (checked,) = check(path).checked
    assert (checked.classes, checked.state != "error") == (2, True)


def test_the_reader_of_the_how_to_refuses_other_names(tmp_path: Path, new_layout: None) -> None:
    path = EXAMPLES["named-photos"](tmp_path / "pets")
    (path / "cat_03.png").rename(path / "cat.png")
    with pytest.raises(DataError, match=r"cat\.png: expected a name such as hat_017\.jpg"):
        opened(path)


class Odd(Reader):
    """Photos without a split to learn from."""

    def recognises(self, path: Path) -> bool:
        return path.suffix == ".odd"

    def read(self, path: Path, options: DataOptions) -> Dataset:
        return Dataset.from_paths("odd", path.parent, {"test": {"a": [path]}})


def test_without_photos_to_learn_from_data_are_only_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.odd").touch()
    monkeypatch.setitem(readers._entries, "odd", Odd)
    with pytest.raises(DataError, match=r"x\.odd: expected a split train, got test"):
        opened(tmp_path / "x.odd")
    assert opened(tmp_path / "x.odd", target=True).photos("test") == (("x.odd", 0),)
