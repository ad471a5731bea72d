from __future__ import annotations

from pathlib import Path

import pytest

from sar_infer.bundle import open_bundle
from sar_infer.errors import ImageError
from sar_train.errors import ConfigError
from sar_train.export.precision.samples import CALIBRATION, JUDGING, name_tokens, pixels, split

ROOT = Path("photos")
PATHS = [ROOT / f"{i % 3}" / f"{i}.jpg" for i in range(60)]


def test_both_sets_are_disjoint_and_the_same_every_time() -> None:
    drawn = split(PATHS, ROOT)
    assert (len(drawn.calibration), len(drawn.judging)) == (30, 30)
    assert not set(drawn.calibration) & set(drawn.judging)
    assert split(PATHS[::-1], ROOT) == drawn
    assert {path.parent.name for path in drawn.calibration} == {"0", "1", "2"}


def test_where_the_folder_lies_does_not_matter() -> None:
    moved = split([Path("/elsewhere") / path for path in PATHS], Path("/elsewhere/photos"))
    assert [Path("/elsewhere") / path for path in split(PATHS, ROOT).judging] == list(moved.judging)


def test_many_photos_are_cut_to_what_is_needed() -> None:
    drawn = split([ROOT / f"{i}.jpg" for i in range(4000)], ROOT)
    assert (len(drawn.calibration), len(drawn.judging)) == (CALIBRATION, JUDGING)


def test_too_few() -> None:
    with pytest.raises(ConfigError, match="--photos photos: 39 photos, expected at least 40"):
        split(PATHS[:39], ROOT)


def test_a_photo_that_cannot_be_read_is_named(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"p\.jpg: not an image"):
        pixels(tmp_path / "p.jpg", open_bundle(exported).manifest.preprocess)


def test_names_are_those_of_the_bank_and_nouns(exported: Path) -> None:
    bundle = open_bundle(exported)
    tokens = name_tokens(bundle)
    own = [name for name in bundle.bank.names if name not in bundle.bank.info]
    assert [bundle.tokenizer.encode(name + bundle.manifest.tokenizer.suffix) for name in own] == tokens[: len(own)]
    assert len(tokens) > 500
