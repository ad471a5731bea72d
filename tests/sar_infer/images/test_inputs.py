from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from support.users import unprivileged

from sar_infer.errors import InputError, WriteError
from sar_infer.images.inputs import expand, expand_present, folders, read_class_list, write_class_list


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "photos/b.JPG",
        "photos/a.png",
        "photos/deep/c.webp",
        "photos/notes.txt",
        "photos/.hidden.jpg",
        "photos/.git/x.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def slashed(paths: list[str]) -> list[str]:
    return [path.replace(os.sep, "/") for path in paths]


def test_folders_are_searched_through_in_order(folder: Path) -> None:
    (folder / "photos" / "a folder.jpg").mkdir()
    assert slashed(expand(["photos"])) == ["photos/a.png", "photos/b.JPG", "photos/deep/c.webp"]
    assert expand([str(folder / "photos")])[0] == str(folder / "photos" / "a.png")


def test_images_whose_format_is_not_read_are_told_of_once(folder: Path) -> None:
    for name in ("photos/b.JXL", "photos/deep/a.jxl", "photos/deep/x.Jp2", "empty/y.jxl", "photos/.z.jxl"):
        (folder / name).touch()
    (folder / "root").mkdir()
    (folder / "photos").rename(folder / "root" / "cat")
    (folder / "root" / "cat" / "link").symlink_to(folder / "empty")
    warnings: list[str] = []
    assert len(expand(["root", "root/cat/deep/x.Jp2"], warnings.append)) == 4
    assert list(folders("root", warnings.append)) == ["cat"]
    line = "left out 3 files whose format is not read (.jp2, .jxl), such as root/cat/b.JXL; convert to JPEG"
    linked = "linked folders are passed over (1, such as root/cat/link); name them too"
    assert slashed(warnings) == [line, linked, line, linked]
    with pytest.raises(InputError, match=r"\.jxl"):
        expand(["empty"])


def test_a_file_is_taken_as_it_is_called(folder: Path) -> None:
    assert expand(["./photos/notes.txt", "-", "photos/a.png"]) == ["./photos/notes.txt", "-", "photos/a.png"]


def test_a_missing_file_among_others_is_kept(folder: Path) -> None:
    assert expand_present(["gone.jpg", "photos/a.png"]) == ["gone.jpg", "photos/a.png"]
    with pytest.raises(InputError, match="gone.jpg: no such file or folder"):
        expand_present(["gone.jpg"])


def test_patterns(folder: Path) -> None:
    assert slashed(expand(["photos/*.png"])) == ["photos/a.png"]
    assert slashed(expand(["photos/**/*.webp"])) == ["photos/deep/c.webp"]
    assert slashed(expand([str(folder / "phot*")])) == slashed(expand([str(folder / "photos")]))


def test_a_name_that_looks_like_a_pattern_but_exists(folder: Path) -> None:
    (folder / "a[1].jpg").write_bytes(b"")
    assert expand(["a[1].jpg"]) == ["a[1].jpg"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nothing.jpg", "nothing.jpg"),
        ("empty", "empty: "),
        ("*.jpg", r"\*\.jpg"),
        ("photos/deep/../nothing", "nothing"),
    ],
)
def test_arguments_that_cannot_be_used(folder: Path, argument: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(["photos/a.png", argument])


def test_folders_of_classes_are_read_as_in_training(folder: Path) -> None:
    for name in ("rain_boot/a.png", "rain boot/b.png", "snow_boot/c.png", "cafe\u0301/d.png", "__MACOSX/._a.png"):
        (folder / "classes" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "classes" / name).write_bytes(b"")
    by_class = folders("classes", lookup={"snow_boot": 0}.get)
    assert {name: [Path(path).name for path in paths] for name, paths in by_class.items()} == {
        "rain boot": ["b.png", "a.png"],
        "snow_boot": ["c.png"],
        "caf\xe9": ["d.png"],
    }


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("gone", "gone: no such file or folder"),
        ("photos/a.png", "photos/a.png: expected a folder with one folder for each class"),
        ("empty", "expected one folder for each class, there is none"),
        ("photos", "photos/a.png: lies next to the class folders"),
        ("high", "high: one level too high: its photos lie in folders of folders; name one of these, such as high/set"),
    ],
)
def test_folders_that_are_not_those_of_classes(folder: Path, root: str, message: str) -> None:
    (folder / "high" / "set" / "cat").mkdir(parents=True)
    (folder / "high" / "set" / "cat" / "a.png").touch()
    with pytest.raises(InputError, match=message):
        folders(root)
    assert list(folders("high/set")) == ["cat"]


@pytest.mark.skipif(os.name != "posix", reason="needs its permissions")
def test_a_folder_that_cannot_be_listed_is_named(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "photos/deep").chmod(0)
    (folder / "empty").chmod(0)
    try:
        with unprivileged():
            with pytest.raises(InputError, match="photos.deep: cannot be listed: Permission denied"):
                expand(["photos"])
            with pytest.raises(InputError, match="empty: cannot be listed: Permission denied"):
                folders("empty")
    finally:
        (folder / "photos/deep").chmod(0o755)
        (folder / "empty").chmod(0o755)


def test_a_list_of_classes_survives_any_name_of_a_file(folder: Path) -> None:
    names = ["cr\rx.jpg", "new\nline.jpg", '"quoted", and more.jpg', "=1+1.jpg", "@x.jpg", "-x.jpg", "\udcff.jpg"]
    for name in names:
        Path(name).touch()
    write_class_list(Path("list.csv"), [("", "gone.jpg", "1"), *(("=hat", name, "worth a label") for name in names)])
    assert {
        name: [os.path.relpath(path) for path in paths] for name, paths in read_class_list(Path("list.csv")).items()
    } == {"=hat": names}
    text = Path("list.csv").read_bytes().decode("utf-8", "surrogateescape")
    cells = list(csv.reader(text.splitlines(keepends=True)))
    assert not [cell for row in cells for cell in row if cell.startswith(("=", "+", "-", "@"))]
    with pytest.raises(WriteError, match="cannot be written"):
        write_class_list(Path("nowhere/named.csv"), [])


def test_a_list_of_classes_is_quoted_only_where_it_must_be(folder: Path) -> None:
    """So that a line of sed names classes, as in ``docs/banks.md``."""
    write_class_list(Path("list.csv"), [("", "a photo.jpg", "1"), ("big, red", "b.jpg", "worth a label")])
    assert Path("list.csv").read_text() == 'class,photo,group\n,a photo.jpg,1\n"big, red",b.jpg,worth a label\n'


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError, match="pipe"):
        expand(["pipe"])
