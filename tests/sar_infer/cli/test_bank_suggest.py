"""``sar-bank suggest`` on photos of garments, and its page."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.bank_commands import Command

from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main
from sar_infer.evaluation.html import write_page

run = Command(main)
CLOTHES = Path(__file__).parents[3] / "examples" / "clothes"
BANK, PAGE, LIST = Path("shop.safetensors"), Path("shop-groups.html"), Path("shop-groups.csv")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for photos that nobody labelled: 8 each of shoes, hats and dresses."""
    monkeypatch.chdir(tmp_path)
    for name in ("shoes", "hat", "dress"):
        for path in sorted((CLOTHES / "test" / name).glob("*.jpg"))[:8]:
            Path("stream").mkdir(exist_ok=True)
            shutil.copy(path, f"stream/{name}-{path.name}")
    return tmp_path


def rows(path: Path = LIST) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def kind(photo: str) -> str:
    """The garment of a photo of the stream."""
    return Path(photo).name.partition("-")[0]


def counts() -> dict[str, int]:
    return {name: len(photos) for name, photos in ClassBank.load(BANK).photos.items()}


def test_groups_get_names_and_become_classes() -> None:
    Path("stream/bad.jpg").write_bytes(b"no image")
    result = run("suggest", BANK, "--photos", "stream", "--format", "json", code=1)
    assert "bad.jpg: not an image" in result.stderr
    content = json.loads(result.stdout)
    assert (content["photos"], content["skipped"], content["page"], content["list"]) == (24, 1, str(PAGE), str(LIST))
    assert not BANK.exists()
    assert sum(group["size"] for group in content["groups"]) == 24
    listed = rows()
    assert all(row["class"] == "" and Path(row["photo"]).is_absolute() for row in listed)
    groups = [row for row in listed if row["group"].isdigit()]
    assert sorted(Path(row["photo"]).name for row in groups) == sorted(
        path.name for path in Path("stream").iterdir() if path.name != "bad.jpg"
    )
    by_group: dict[str, list[str]] = {}
    for row in groups:
        by_group.setdefault(row["group"], []).append(kind(row["photo"]))
    for row in groups:  # as a person would, each group gets one name
        row["class"] = "my " + Counter(by_group[row["group"]]).most_common(1)[0][0]
    with LIST.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["class", "photo", "group"])
        writer.writeheader()
        writer.writerows(listed)
    assert "added 24 photos to" in run("add", BANK, "--photos", LIST).stdout
    assert counts().keys() == {"my shoes", "my hat", "my dress"}
    assert sum(counts().values()) == 24
    content = run.report("suggest", BANK, "--photos", "stream", code=1)
    like = [group for group in content["groups"] if group["like"]]
    assert {group["like"] for group in like} <= counts().keys()
    assert (size := sum(group["size"] for group in like)) > 12  # most are of classes that are there now
    assert sum(f"my {kind(photo)}" == group["like"] for group in like for photo in group["photos"]) >= 0.9 * size
    assert {len(label["answers"]) for label in content["labels"]} == {2}


def test_the_text_counts_groups_and_says_what_to_do() -> None:
    lines = run("suggest", BANK, "--photos", "stream", "--html", "here.html").stdout.splitlines()
    assert re.match(r"24 photos; \d+ of them look like none of the 998 classes, in \d+ groups?$", lines[0])
    assert "group  photos  nearest classes" in lines
    assert {line.count("stream/") for line in lines if line.startswith("  " * 7)} == {2}  # the most typical of a group
    assert not any(line.startswith("and ") for line in lines)  # all groups are shown, as they are few
    assert "worth a label first" in lines
    assert f"save the list and add it: sar-bank add {BANK} --photos named.csv" in lines[-2]
    assert lines[-1].startswith("list  here.csv")
    assert not PAGE.exists()


def test_photos_that_are_no_files_are_grouped_and_not_listed() -> None:
    with tarfile.open("photos.tar", "w") as shard:
        for path in sorted(Path("stream").iterdir()):
            shard.add(path, path.name)
    content = run.report("suggest", BANK, "--photos", "photos.tar")
    assert content["photos"] == 24
    assert all(key.startswith("photos.tar/") for group in content["groups"] for key in group["photos"])
    assert rows() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (("stream", "--html", page), f"{page}: expected an HTML file to write")
            for page in ("stream", "none/page.html", "page.csv")
        ),
        (("empty",), "empty: "),
        (("broken",), "no photo that can be read"),
    ],
)
def test_without_photos_or_a_page_to_write_it_is_refused(arguments: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/x.png").write_bytes(b"")
    assert message in run.refused("suggest", BANK, "--photos", *arguments)


# ----------------------------------------------------------------------------------------------------------------- page
ATTACK = "</script><img src=x onerror=document.title='taken'>"


def sheet(path: Path) -> list[str]:
    """Write a page of three groups, the last like a class; return the paths of all photos."""
    photos = [
        {"key": f"{n}.jpg", "path": None if n == 5 else f'/photos/{n}, "{n}".jpg', "picture": None} for n in range(6)
    ]
    nearest = [{"label": ATTACK, "score": 0.5}, {"label": "cup", "score": 0.25}]
    groups = [
        {"size": 9, "like": None, "nearest": nearest, "photos": photos[:3]},
        {"size": 1, "like": None, "nearest": [], "photos": photos[3:4]},
        {"size": 2, "like": "cup", "nearest": nearest, "photos": photos[4:6]},
    ]
    labels = [{"photo": dict(photos[0]), "answers": nearest}]
    data: dict[str, Any] = {
        "title": ATTACK, "photos": 12, "classes": 2, "names": ["cup", ATTACK], "command": "sar-bank add x",
        "groups": groups, "labels": labels,
    }  # fmt: skip
    write_page(path, "groups", "x", data)
    return [photo["path"] for photo in photos]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_groups_are_named_in_a_browser_and_the_list_is_saved(browser: Any, tmp_path: Path, scheme: str) -> None:
    from support.browser import PHONE, visited  # needs scikit-image, which the other tests do without

    paths = sheet(tmp_path / "page.html")
    with visited(browser, tmp_path / "page.html", color_scheme=scheme) as page:
        assert page.title() == "x"
        assert "12 photos; 10 of them look like none of 2 classes" in page.inner_text("body")
        assert page.locator("#new > li").count() == 2
        assert page.locator("#save").is_disabled()
        page.get_by_label("Name of group 1").fill(' "big", mug ')
        page.get_by_role("button", name="Photo 2, 1.jpg").click()
        page.get_by_label("Name of group 1").press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Name of group 2"
        page.get_by_label("Class of photo 1").fill("cup")
        assert page.inner_text("#count") == "2 photos of 2 classes"
        page.locator("summary").click()
        assert page.get_by_role("button", name="Photo 2, 5.jpg").is_disabled()  # no file
        with page.expect_download() as download:
            page.click("#save")
        assert download.value.suggested_filename == "named.csv"
        download.value.save_as(tmp_path / "named.csv")
        assert [(row["class"], row["photo"], row["group"]) for row in rows(tmp_path / "named.csv")] == [
            ("cup", paths[0], "worth a label"),  # a label of its own counts more than its group's
            ('"big", mug', paths[2], "1"),
        ]
        page.set_viewport_size(PHONE["viewport"])
