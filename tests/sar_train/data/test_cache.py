import dataclasses
import logging
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.photos import write_photo
from support.tiny import tiny_backbone

from sar_train.data.cache import FLUSH_ROWS, FeatureCache, row_key, set_folder, tell_of_change
from sar_train.data.dataset import Dataset
from sar_train.data.splits import hold_out

KEYS = [bytes([i]) * 16 for i in range(5)]


def test_rows_come_back_from_disk(tmp_path: Path) -> None:
    rows = torch.randn(5, 8)
    first = FeatureCache(tmp_path / "c", 8)
    first.put(KEYS[:3], rows[:3])
    first.flush()
    first.put(KEYS[3:], rows[3:])
    first.flush()
    first.flush()
    assert len(list((tmp_path / "c").iterdir())) == 2
    second = FeatureCache(tmp_path / "c", 8)
    assert all(torch.equal(second[key], row) for key, row in zip(KEYS, rows, strict=True))
    assert b"x" * 16 not in second


def test_many_rows_are_written_without_being_told(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 8)
    keys = [i.to_bytes(16) for i in range(FLUSH_ROWS + 1)]
    cache.put(keys[:-2], torch.randn(len(keys) - 2, 8))
    assert list(tmp_path.iterdir()) == []
    cache.put(keys[-2:], torch.randn(2, 8))
    assert len(list(tmp_path.iterdir())) == 1


def test_in_memory_without_a_folder() -> None:
    cache = FeatureCache(None, 8)
    cache.put(KEYS, torch.ones(5, 8))
    cache.flush()
    assert KEYS[4] in cache


@pytest.mark.parametrize("kind", ["bytes", "size", "nan", "keys", "tensor"])
def test_damaged_files_are_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    keys, rows = torch.zeros(2, 16, dtype=torch.uint8), torch.ones(2, 8)
    content = {
        "size": {"keys": keys, "features": torch.ones(2, 9)},
        "nan": {"keys": keys, "features": rows * float("nan")},
        "keys": {"keys": keys[:1], "features": rows},
        "tensor": {"keys": keys},
    }
    if kind == "bytes":
        path.write_bytes(b"garbage")
    else:
        save_file(content[kind], path)
    with caplog.at_level(logging.WARNING):
        cache = FeatureCache(tmp_path, 8)
    assert bytes(16) not in cache
    assert "is damaged and ignored" in caplog.text


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "cache", 8)
    cache.put(KEYS, torch.ones(5, 8))
    with caplog.at_level(logging.WARNING):
        cache.flush()
    cache.put([b"y" * 16], torch.ones(1, 8))
    cache.flush()
    assert len(caplog.messages) == 1
    assert str(tmp_path / "file") in caplog.text
    assert b"y" * 16 in cache


def test_keys_follow_the_photo_and_the_view(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "x.png")
    stat = path.stat()
    plain, first = row_key("x.png", stat, 0, 1), row_key("x.png", stat, 1, 1)
    assert plain == row_key("x.png", stat, 0, 2)
    assert len({plain, first, row_key("x.png", stat, 1, 2), row_key("y.png", stat, 0, 1)}) == 4
    os.utime(path, ns=(1, 1))
    fixed = row_key("x.png", path.stat(), 0, 1)
    assert fixed != plain
    time.sleep(0.02)  # a file system's clock may tick a hundred times a second
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))  # as an archive does that gives all files one time
    assert row_key("x.png", path.stat(), 0, 1) != fixed


def test_folders(tmp_path: Path) -> None:
    ours = set_folder(tmp_path, "my photos/…", tiny_backbone())
    assert ours.parent == tmp_path
    assert ours.name.startswith("my_photos__-")
    assert ours != set_folder(tmp_path, "my photos/…", tiny_backbone(seed=1))


def pets(root: Path, count: int, seed: int = 1) -> Dataset:
    """Photos of two classes, of which a seed holds some out."""
    whole = Dataset.from_paths("pets", root, {"train": {c: [root / f"{c}{i}.jpg" for i in range(count)] for c in "ab"}})
    return dataclasses.replace(whole, splits=hold_out(whole.photos("train"), 2, seed))


def test_other_photos_than_before_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "cache"
    for seed in (1, 2):  # other splits of the same photos
        tell_of_change(folder, pets(tmp_path, 6, seed))
    tell_of_change(folder, pets(tmp_path / "elsewhere", 5))  # another folder of the same name
    assert caplog.messages == []
    for _ in range(2):
        tell_of_change(folder, pets(tmp_path, 7))
    assert caplog.messages == [
        "pets: its photos are not those of an earlier run (12 then, 14 now), so other ones are drawn"
    ]
    renamed = dataclasses.replace(pets(tmp_path, 7), class_names=("a", "c"))
    tell_of_change(folder, renamed)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", None])
def test_a_note_that_cannot_be_read_or_written_stops_nothing(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    if content is None:
        folder.touch()
    else:
        tell_of_change(folder, pets(tmp_path, 6))
        next(folder.iterdir()).write_bytes(content)
    tell_of_change(folder, pets(tmp_path, 7))
    assert caplog.messages == []
