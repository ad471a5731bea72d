from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from sar_infer.bundle.bundle import open_bundle
from sar_infer.errors import ImageError
from sar_train.errors import ConfigError
from sar_train.export.precision.samples import CALIBRATION, JUDGING, name_tokens, pixels, split


def write(root: Path, numbers: range) -> list[Path]:
    """Write files that differ, in folders."""
    paths = [root / f"{i % 3}" / f"{i}.jpg" for i in numbers]
    for i, path in zip(numbers, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"photo {i}")
    return paths


def names(paths: Iterable[Path]) -> set[str]:
    return {path.name for path in paths}


def test_both_sets_are_disjoint_and_the_same_every_time(tmp_path: Path) -> None:
    paths = write(tmp_path, range(60))
    drawn = split(paths, tmp_path)
    assert len(drawn.calibration) + len(drawn.judging) == 60
    assert min(len(drawn.calibration), len(drawn.judging)) > 20
    assert not set(drawn.calibration) & set(drawn.judging)
    assert split(paths[::-1], tmp_path) == drawn
    assert {path.parent.name for path in drawn.calibration} == {"0", "1", "2"}


def test_a_photo_stays_on_its_side_wherever_it_lies_and_whatever_is_added(tmp_path: Path) -> None:
    before = split(write(tmp_path / "a", range(60)), "a")
    after = split([*write(tmp_path / "b", range(60)), *write(tmp_path / "c", range(60, 120))], "b and c")
    assert names(before.calibration) < names(after.calibration)
    assert names(before.judging) < names(after.judging)


def test_copies_count_once(tmp_path: Path) -> None:
    copies = [shutil.copy(path, path.with_name(f"copy-{path.name}")) for path in write(tmp_path, range(60))]
    halves = split([*write(tmp_path, range(60)), *copies], tmp_path)
    contents = [path.read_text() for path in (*halves.calibration, *halves.judging)]
    assert len(set(contents)) == len(contents) == 60


def test_many_photos_are_cut_to_what_is_needed(tmp_path: Path) -> None:
    drawn = split(write(tmp_path, range(2600)), tmp_path)
    assert (len(drawn.calibration), len(drawn.judging)) == (CALIBRATION, JUDGING)


def test_too_few_photos(tmp_path: Path) -> None:
    paths = write(tmp_path, range(39))
    with pytest.raises(ConfigError, match="x: 39 .*40, and 15 "):
        split(paths, "x")
    one_sided = split(write(tmp_path, range(100)), "x").judging  # whose digests all say the same side
    with pytest.raises(ConfigError, match="0 to calibrate"):
        split(one_sided, "x")


def test_a_photo_that_cannot_be_read_is_named(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(b"no")
    with pytest.raises(ImageError, match="p.jpg"):
        pixels(tmp_path / "p.jpg", open_bundle(exported).manifest.preprocess)


def test_names_are_those_of_the_bank_and_nouns(exported: Path) -> None:
    bundle = open_bundle(exported)
    tokens = name_tokens(bundle)
    names = [name for name in bundle.bank.names if name not in bundle.bank.info]
    assert [bundle.tokenizer.encode(name + bundle.manifest.tokenizer.suffix) for name in names] == tokens[: len(names)]
    assert len(tokens) > 500
