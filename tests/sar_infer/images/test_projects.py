from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.pictures import jpeg

from sar_infer.errors import ImageError, InputError
from sar_infer.images.inputs import expand, folders
from sar_infer.images.load import load_rgb


def project(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], object] = lambda _: None) -> str:
    """Write a project as Teachable Machine does: folders of photos, and a JSON with the labels."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"manifest.json": b"{}", **files}.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            archive.writestr(entry, content)
    return str(path)


def test_a_project_is_a_folder_of_class_folders(tmp_path: Path) -> None:
    red, blue = jpeg(), jpeg(colour=(30, 30, 200))
    files = {"red_mug/0.jpg": red, "red_mug/1.jpg": blue, "Tea pot/0.jpg": blue, "__MACOSX/red_mug/._0.jpg": b"x"}
    path = project(tmp_path / "mugs.tm", files)
    assert folders(path) == {
        "Tea pot": [f"{path}/Tea pot/0.jpg"],
        "red mug": [f"{path}/red_mug/0.jpg", f"{path}/red_mug/1.jpg"],
    }
    photos = expand([path])
    assert photos == [photo for of_class in folders(path).values() for photo in of_class]
    assert [np.array(load_rgb(photo)).tolist() for photo in photos] == [
        np.array(load_rgb(content)).tolist() for content in (blue, red, blue)
    ]
    with pytest.raises(ImageError, match="no such photo in the project"):
        load_rgb(f"{path}/red_mug/2.jpg")
    project(tmp_path / "mugs.tm", {"cup/0.jpg": red})  # a file that changed is read again
    assert folders(path) == {"cup": [f"{path}/cup/0.jpg"]}


def _symlink(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16


def _lzma(entry: zipfile.ZipInfo) -> None:
    entry.compress_type = zipfile.ZIP_LZMA


@pytest.mark.parametrize(
    ("files", "change", "reason"),
    [
        ({"../0.jpg": b"x"}, None, "plain name"),
        ({"/cat/0.jpg": b"x"}, None, "plain name"),
        ({"cat/\x1b[2J.jpg": b"x"}, None, "plain name"),
        ({"cat/0.jpg": b"/etc/passwd"}, _symlink, "a link or a device"),
        ({"cat/0.jpg": b"x"}, _lzma, "another compression"),
        ({"cat/0.jpg": bytes(2**22)}, None, "at most 200 times"),
        ({"0.jpg": b"x"}, None, "without a folder of photos"),
    ],
)
def test_hostile_projects_are_rejected(tmp_path: Path, files: dict[str, bytes], change: object, reason: str) -> None:
    path = project(tmp_path / "hostile.tm", files, change or (lambda _: None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=reason):
        folders(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda sound: b"", "a zip"),
        (lambda sound: sound[:-1], "a zip"),
        (lambda sound: sound[:-10] + (2**30).to_bytes(4, "little") + sound[-6:], "index is too large"),
        (lambda sound: sound[:-22] + b"PK\6\7" + bytes(16) + sound[-22:], "index is too large"),
        (lambda sound: sound.replace(b"cat/0.jpg", b"cat/1.jpg"), "one name"),
        (lambda sound: sound.replace(b"PK\1\2", b"PK\1\3"), "not a Teachable Machine project"),
    ],
)
def test_damaged_projects_are_rejected(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = Path(project(tmp_path / "damaged.tm", {"cat/0.jpg": jpeg(), "cat/1.jpg": jpeg()}))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=reason):
        folders(str(path))


def test_a_photo_with_other_bytes_than_its_check_sum_is_an_error(tmp_path: Path) -> None:
    path, photo = tmp_path / "cut.tm", jpeg()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.jpg", photo)
    path.write_bytes(path.read_bytes().replace(photo, photo[:-3] + b"abc"))
    with pytest.raises(ImageError, match="cannot be read"):
        load_rgb(expand([str(path)])[0])
