"""Draws are kept for exactly the photos they were drawn from, and nothing else can come back."""

import json
import logging
from pathlib import Path

import pytest
from support.coop import link_photos
from support.opened import opened

from sar_train.data.images import ImageDataset, LabelledImage
from sar_train.data.shots import few_shot
from sar_train.data.split_cache import SplitCache, draw_shots


def dataset(root: Path, count: int = 12) -> ImageDataset:
    photos = [
        tuple(LabelledImage(root / f"{s}/{c}{i}.jpg", c) for c in range(3) for i in range(count)) for s in ("t", "v")
    ]
    return ImageDataset("x", ("a", "b", "c"), "a {}.", root, photos[0], photos[1], (), published_split=True)


def expected(x: ImageDataset, shots: int, seed: int) -> object:
    return few_shot([p.label for p in x.train], [p.label for p in x.val], shots, seed)


@pytest.mark.parametrize("shots", [0, 1, 4, 99])
def test_draws_are_what_they_always_were(tmp_path: Path, shots: int) -> None:
    x, cache = dataset(Path("photos")), tmp_path / "cache"
    for _ in range(2):
        assert draw_shots(x, shots, 3, cache) == expected(x, shots, 3)
    assert draw_shots(x, shots, 3) == expected(x, shots, 3)
    assert len(list(cache.rglob("*.json"))) == (1 if shots else 0)


def test_a_kept_draw_outlives_another_generator(tmp_path: Path) -> None:
    x = dataset(Path("photos"))
    first, other = draw_shots(x, 4, 1, tmp_path), draw_shots(x, 4, 2)
    (path,) = tmp_path.rglob("shot_4-seed_1.json")
    content = json.loads(path.read_text())
    assert content["train"][0] == x.relative(x.train[first.train[0]])
    assert content["version"] == 1
    content["train"] = [x.relative(x.train[row]) for row in other.train]  # as another Python drew them
    path.write_text(json.dumps(content))
    kept = draw_shots(x, 4, 1, tmp_path)
    assert (kept.train, kept.val) == (other.train, first.val)
    assert kept != first == draw_shots(x, 4, 1)


def test_other_photos_never_get_the_old_draw_and_are_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw_shots(dataset(tmp_path), 4, 1, tmp_path / "cache")
    assert caplog.text == ""
    more = dataset(tmp_path, 13)
    assert draw_shots(more, 4, 1, tmp_path / "cache") == expected(more, 4, 1)
    assert "x: its photos are not those of an earlier run (72 then, 78 now), so a new draw is made" in caplog.text
    caplog.clear()
    draw_shots(more, 4, 1, tmp_path / "cache")
    draw_shots(dataset(tmp_path / "elsewhere", 5), 4, 1, tmp_path / "cache")  # another folder of the same name
    assert caplog.text == ""


def damage_text(content: dict) -> str:
    return "{"


def damage_deep(content: dict) -> str:
    return "[" * 100_000


def damage_listing(content: dict) -> str:
    return json.dumps(content | {"listing": "0" * 64})


def damage_stranger(content: dict) -> str:
    return json.dumps(content | {"train": ["t/none.jpg", *content["train"][1:]]})


def damage_twice(content: dict) -> str:
    return json.dumps(content | {"train": [content["train"][1], *content["train"][1:]]})


def damage_few(content: dict) -> str:
    return json.dumps(content | {"train": content["train"][1:]})


def damage_type(content: dict) -> str:
    return json.dumps(content | {"val": [1, 2]})


def damage_part(content: dict) -> str:
    return json.dumps({key: value for key, value in content.items() if key != "val"})


@pytest.mark.parametrize(
    "damage",
    [
        damage_text, damage_deep, damage_listing, damage_stranger, damage_twice, damage_few, damage_type, damage_part,
    ],
)  # fmt: skip
def test_damaged_files_are_drawn_again_with_a_word(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    x = dataset(Path("photos"))
    draw_shots(x, 4, 1, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_text()
    path.write_text(damage(json.loads(whole)))
    with caplog.at_level(logging.WARNING):
        assert draw_shots(x, 4, 1, tmp_path) == expected(x, 4, 1)
    assert "is damaged; drawn again" in caplog.text
    assert path.read_text() == whole


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "splits").write_text("a file where the folder would be")
    x = dataset(Path("photos"))
    assert draw_shots(x, 4, 1, tmp_path) == expected(x, 4, 1)
    assert "going on without it" in caplog.text


def test_photos_listed_twice_are_not_kept(tmp_path: Path) -> None:
    x = dataset(Path("photos"))
    twice = ImageDataset("x", x.class_names, x.template, x.root, (*x.train, x.train[0]), x.val, ())
    assert draw_shots(twice, 4, 1, tmp_path) == expected(twice, 4, 1)
    assert list(tmp_path.rglob("*.json")) == []


def test_names_that_are_not_text(tmp_path: Path) -> None:
    photos = tuple(LabelledImage(Path(f"p/\udcff{i}.jpg"), 0) for i in range(6))
    x = ImageDataset("ä/b", ("a",), "a {}.", Path("p"), photos, (), ())
    assert draw_shots(x, 2, 1, tmp_path) == draw_shots(x, 2, 1, tmp_path) == expected(x, 2, 1)


def test_photos_held_out_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = link_photos(tmp_path / "pets", [f"{c}/{i}.jpg" for c in "ab" for i in range(12)])
    plain, cache = opened(root, 4, 1), tmp_path / "cache"
    assert opened(root, 4, 1, cache_dir=cache) == opened(root, 4, 1, cache_dir=cache) == plain
    (path,) = cache.rglob("split-4-seed_1.json")
    assert str(tmp_path) not in path.read_text()
    content = json.loads(path.read_text())
    content["train"][0], content["test"][0] = content["test"][0], content["train"][0]
    path.write_text(json.dumps(content))
    assert opened(root, 4, 1, cache_dir=cache) != plain  # what is kept is what counts
    link_photos(root, ["a/more.jpg"])
    assert len(opened(root, 4, 1, cache_dir=cache).test) == len(plain.test) + 1
    assert "pets: its photos are not those of an earlier run (24 then, 25 now)" in caplog.text


def test_a_split_is_all_photos_once(tmp_path: Path) -> None:
    cache = SplitCache(tmp_path, "x", tmp_path, [f"{i}\0a" for i in range(4)])
    drawn = {"train": ["0", "1"], "val": ["2"], "test": ["3"]}
    assert cache.split("s.json", lambda: drawn) == drawn
    assert cache.split("s.json", lambda: pytest.fail("drawn again")) == drawn
    (path,) = tmp_path.rglob("s.json")
    path.write_text(path.read_text().replace('"3"', '"2"'))
    assert cache.split("s.json", lambda: drawn) == drawn
