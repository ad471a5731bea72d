from pathlib import Path

import pytest
from support.coop import write_aircraft

from sar_train.data.aircraft import read_aircraft
from sar_train.data.coop_layout import load_dataset
from sar_train.errors import DataError


def test_variants_in_their_order(tmp_path: Path) -> None:
    write_aircraft(tmp_path)
    dataset = load_dataset("fgvc-aircraft", tmp_path)
    assert dataset.class_names == ("707-320", "A340-200", "DR-400 x")
    assert [p.label for p in dataset.val] == [0, 0, 1, 1, 2, 2]
    assert [len(dataset.photos(split)) for split in ("train", "val", "test")] == [6, 6, 6]
    assert dataset.relative(dataset.test[5]) == "117.jpg"
    assert dataset.split_origin == "published"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "images_variant_val.txt",
            "100 Concorde\n",
            r"val\.txt, line 1: expected a number and a variant.*'100 Concorde'",
        ),
        ("images_variant_test.txt", "../100 707-320\n", "line 1: expected a path below the image folder"),
        ("images_variant_test.txt", None, r"images_variant_test\.txt: not there; it comes with the dataset"),
        ("variants.txt", "a\na\n", "expected one variant a line, each once, got 2 lines"),
        ("variants.txt", "", "got 0 lines"),
    ],
)
def test_bad_lists(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    folder = write_aircraft(tmp_path)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_aircraft(folder)


def test_not_text(tmp_path: Path) -> None:
    (write_aircraft(tmp_path) / "variants.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_aircraft(tmp_path / "fgvc_aircraft")
