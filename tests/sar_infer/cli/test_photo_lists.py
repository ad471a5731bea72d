"""Lists of photos with their classes, which ``sar-bank suggest`` writes and ``sar-bank add --photos`` takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bank_commands import BANK, Command, paint_folders

from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main

run = Command(main)

pytestmark = pytest.mark.usefixtures("here")


def test_paths_may_be_relative_to_the_list() -> None:
    paint_folders("photos", 2, seed=1, names=("red",))
    Path("lists").mkdir()
    Path("lists/named.CSV").write_text("\ufeffphoto,class\n../photos/red/1.png,clog\n../photos/red/0.png,\n")
    run("add", BANK, "--photos", "lists/named.CSV")
    assert {name: len(photos) for name, photos in ClassBank.load(BANK).photos.items()} == {"clog": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["class", "red"], "no column 'photo'"),
        (["class,photo", ",photos/red/0.png"], "names no class"),
        (["class,photo", "hat,photos/none.jpg"], "line 2: 'photos/none.jpg' is no file"),
        (["class,photo,group", "hat"], "line 2: '' is no file"),
        (["class,photo", "hat,\udcff"], "line 2: '\\udcff' is no file"),
    ],
)
def test_unusable_lists(lines: list[str], message: str) -> None:
    paint_folders("photos", 1, seed=1, names=("red",))
    Path("named.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    assert f"named.csv: {message}" in run.refused("add", BANK, "--photos", "named.csv")


def test_a_project_is_a_source_as_its_folder_is() -> None:
    paint_folders("photos", 4, seed=1)
    Path(shutil.make_archive("project", "zip", "photos")).rename("project.tm")
    for source in ("photos", "project.tm"):
        run("create", f"{source}.safetensors", "--photos", source)
    folder, project = (ClassBank.load(Path(f"{source}.safetensors")) for source in ("photos", "project.tm"))
    assert {name: photos.digests for name, photos in project.photos.items()} == {
        name: photos.digests for name, photos in folder.photos.items()
    }
    Path("named.csv").write_text("class,photo\nclog,project.tm/red/0.png\n")
    run("add", BANK, "--photos", "named.csv")
    run("add", BANK, "--photos", "project.tm", "--exclude", "named.csv")
    photos = ClassBank.load(BANK).photos
    assert (len(photos["clog"]), len(photos["red"])) == (1, 3)
    assert "leave the name out" in run.refused("add", BANK, "mug", "--photos", "project.tm")
