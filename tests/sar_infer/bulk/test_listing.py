from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow
import pytest
from support.many import small_png, write_images, write_parquet, write_tar
from support.users import unprivileged

from sar_infer.bulk.items import Broken, Flaw, Piece
from sar_infer.bulk.sources.listing import InputSources, Paths
from sar_infer.bulk.sources.row_groups import RowGroup
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(*arguments: str, **settings) -> list[str]:
    return [item.key for piece in InputSources(arguments, **settings).pieces() for item in piece.unit.items()]


def refusal(*arguments: str, **settings) -> str:
    with pytest.raises(InputError) as result:
        InputSources(arguments, **settings).check()
    return str(result.value)


def test_a_folder_is_listed_folder_by_folder_without_what_is_hidden() -> None:
    write_images(Path("p/b"), 2)
    write_images(Path("p/a/deep"), 1, first=7)
    write_images(Path("p/.hidden"), 1)
    for name in ("p/z.jpg", "p/A.JPG", "p/.x.png", "p/notes.md"):
        Path(name).touch()
    assert keys("p") == ["p/A.JPG", "p/z.jpg", "p/a/deep/007.png", "p/b/000.png", "p/b/001.png"]


def test_pieces_are_filled_across_arguments_and_cut_at_shards() -> None:
    write_images(Path("p"), 5)
    write_tar(Path("s.tar"), {"x.png": small_png(1)})
    write_parquet(Path("t.parquet"), {"image": [small_png(n) for n in range(6)]}, rows_of_group=4)
    pieces = list(InputSources(("p", "p/000.png", "s.tar", "t.parquet", "p"), piece_size=4).pieces())
    assert [piece.number for piece in pieces] == list(range(7))
    kinds = [(type(piece.unit), piece.unit.count) for piece in pieces]
    assert kinds == [(Paths, 4), (Paths, 2), (TarShard, None), (RowGroup, 4), (RowGroup, 2), (Paths, 4), (Paths, 1)]
    assert pieces[4].unit.first == 4


@pytest.fixture
def places() -> None:
    """Shards, odd names and lists here, and photos in storage."""
    for number in (8, 9, 10, 11):
        write_tar(Path(f"s-{number:03}.tar"), {"x.png": b""})
    for name in ("a{1,2}.png", "b[1].png", "a::b.png"):
        Path(name).write_bytes(small_png(1))
    text = "a b.jpg\r\n\n#1.png\ns3://bucket/é.jpg\na b.jpg\ns-008.tar\n"
    Path("all.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    Path("p").mkdir()
    Path("p/a.txt").write_text("gone.png\n")
    memory = fsspec.filesystem("memory")
    for name in ("/photos/b/1.png", "/photos/a.jpg", "/photos/.c.png", "/photos/d.txt", "/photos/a/2.PNG"):
        memory.pipe_file(name, b"x")


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s-{009..011}.tar"], ["s-009.tar/x.png", "s-010.tar/x.png", "s-011.tar/x.png"]),
        (["s-{008,010}.tar"], ["s-008.tar/x.png", "s-010.tar/x.png"]),
        (["s-01?.tar"], ["s-010.tar/x.png", "s-011.tar/x.png"]),
        (["{s,s}-{008..008}.tar"], ["s-008.tar/x.png"] * 2),
        (["a{1,2}.png", "b[1].png", "a::b.png"], ["a{1,2}.png", "b[1].png", "a::b.png"]),
        (["all.txt"], ["a b.jpg", "#1.png", "s3://bucket/é.jpg", "a b.jpg", "s-008.tar/x.png"]),
        (["p/*", "p/a.txt"], ["p/a.txt", "gone.png"]),
        (["memory://photos"], [f"memory:///photos/{name}" for name in ("a.jpg", "a/2.PNG", "b/1.png")]),
        (["memory://photos/*/1.png"], ["memory:///photos/b/1.png"]),
        (["memory://photos/?*"], [f"memory:///photos/{n}" for n in (".c.png", "a/2.PNG", "a.jpg", "b/1.png", "d.txt")]),
    ],
    ids=lambda value: value[0] if len(value) == 1 else None,
)
def test_arguments_and_their_inputs(arguments: list[str], expected: list[str]) -> None:
    assert keys(*arguments) == expected


def test_shards_of_a_pattern_that_are_gone_have_a_row_as_in_a_list() -> None:
    write_tar(Path("s-0.tar"), {"x.png": b""})
    write_tar(Path("s-3.tar"), {"x.png": b""})
    write_parquet(Path("t-a.parquet"), {"image": [b""]})
    Path("all.txt").write_text("".join(f"s-{number}.tar\n" for number in range(4)) + "t-a.parquet\nt-b.parquet\n")
    named = list(InputSources(("s-{0..3}.tar", "t-{a,b}.parquet")).pieces())
    assert named == list(InputSources(("all.txt",)).pieces())
    assert [type(piece.unit) for piece in named] == [TarShard, Broken, Broken, TarShard, RowGroup, Broken]
    assert named[1].unit.reason == "cannot be read: No such file or directory"
    assert refusal("s-{1..3}.tar") == "s-1.tar: no such file or folder"  # the first is looked at
    assert refusal("s-{0,3}?.tar").startswith("s-0?.tar: ")


def test_names_that_are_no_utf8_have_a_printable_key_and_open() -> None:
    Path("p").mkdir()
    Path(os.fsdecode(b"p/\xff.png")).write_bytes(small_png(1))
    (piece,) = InputSources(("p",)).pieces()
    (item,) = piece.unit.items()
    assert item.key == "p/\\xff.png"
    assert Path(str(item.source)).read_bytes() == small_png(1)
    assert len(piece.digest) == 64


def test_nothing_is_listed_before_it_is_needed() -> None:
    write_images(Path("p"), 3)
    pieces = InputSources(("p", "gone.png"), piece_size=2).pieces()
    assert next(pieces).unit.count == 2
    with pytest.raises(InputError, match="gone"):
        list(pieces)


def test_a_long_list_is_never_held() -> None:
    Path("all.txt").write_text("".join(f"photos/{number:09}.jpg\n" for number in range(50_000)))
    tracemalloc.start()
    numbers = [piece.number for piece in InputSources(("all.txt",), piece_size=1000).pieces() if piece.digest]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers == list(range(50))
    assert peak < 2**20  # all paths are 4 MiB


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gone.png", "no such file or folder"),
        ("*.png", "matches nothing"),
        ("{5..3}.png", "matches nothing"),
        ("empty", "a folder without images"),
        ("empty.txt", "an empty list"),
        ("wide.txt", "wide.txt: a list in UTF-16; save it as UTF-8"),
        ("gone.lst", "the list cannot be read: No such file"),
        ("x.tar.gz", "compressed tar"),
        ("http://example.com/a.jpg", "web servers are not read"),
        ("https://example.com/{1..3}.tar", "web servers are not read"),
        ("ftp://example.com/a.jpg", "expected a local path or a URL of s3"),
        ("simplecache::s3://bucket/a.jpg", "expected a local path or a URL of s3"),
        ("t.parquet", "no column 'image'; it has photo"),
        ("none.parquet", "none.parquet: no image in it"),
        ("x" * 5000, "…"),
        ("gs://bucket/a.jpg", "pip install 'sar-clip[bulk]' gcsfs"),
        ("memory://nothing", "no such object"),
    ],
)
def test_arguments_that_stand_for_nothing_are_refused(argument: str, message: str) -> None:
    Path("empty").mkdir()
    Path("empty.txt").write_text("\n")
    Path("wide.txt").write_text("a.png\n", "utf-16")
    write_parquet(Path("t.parquet"), {"photo": [b"x"]})
    write_parquet(Path("none.parquet"), {"image": pyarrow.array([], pyarrow.binary())})
    assert message in refusal(argument)


@pytest.mark.skipif(os.name != "posix", reason="needs its permissions")
def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path) -> None:
    write_images(Path("p/closed"), 1)
    tmp_path.chmod(0o755)
    Path("p/closed").chmod(0)
    try:
        with unprivileged():
            assert "closed: cannot be listed" in refusal("p")
    finally:
        Path("p/closed").chmod(0o755)


def test_containers_that_cannot_be_listed_are_one_row() -> None:
    Path("bad.parquet").write_bytes(b"PAR1 no")
    write_parquet(Path("other.parquet"), {"jpg": [b"x"]})
    write_parquet(Path("good.parquet"), {"image": [b"x"]})
    Path("all.txt").write_text("good.parquet\nbad.parquet\ngone.tar\nother.parquet\ngood.parquet\n")
    InputSources(("all.txt",)).check()
    items = [item for piece in InputSources(("all.txt",)).pieces() for item in piece.unit.items()]
    broken = ["bad.parquet", "gone.tar", "other.parquet"]
    assert [item.key for item in items] == ["good.parquet#0", *broken, "good.parquet#0"]
    assert isinstance(items[1].source, Flaw) and items[1].source.kind == "source"
    assert items[2].source == Flaw("source", "cannot be read: No such file or directory")
    assert items[3].source == Flaw("source", "no column 'image'; it has jpg (--column, --key-column)")


def test_shards_in_a_folder_are_passed_over_and_that_is_said() -> None:
    write_images(Path("p/deep"), 2)
    for name in ("a.tar", "deep/b.tar", "deep/c.parquet", ".hidden.tar", "z.HEIC", "deep/0af3", "notes.json", ".git"):
        Path("p", name).touch()
    Path("p/link").symlink_to("deep")
    memory = fsspec.filesystem("memory")
    for name in ("/mixed/a.png", "/mixed/b.tar"):
        memory.pipe_file(name, b"x")
    warnings: list[str] = []
    pieces = list(InputSources(("p", "memory://mixed")).pieces(warn=warnings.append))
    assert [len(piece.unit.paths) for piece in pieces] == [3]
    assert warnings == [
        f"left out 1 file whose format is not read (.heic), such as {Path('p/z.HEIC')}; convert to JPEG",
        f"p: files without a suffix are passed over (1, such as {Path('p/deep/0af3')}); put them in a list (.txt)",
        f"p: linked folders are passed over (1, such as {Path('p/link')}/); name them too",
        "p: 1 .parquet in it passed over; name them as 'p/**/*.parquet'",
        "p: 2 .tar in it passed over; name them as 'p/**/*.tar'",
        "memory://mixed: 1 .tar in it passed over; name them as 'memory://mixed/**/*.tar'",
    ]


def test_a_folder_without_images_says_what_is_there() -> None:
    for name in ("bare/0af3", "shards/a.tar", "shards/README"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    bare = re.escape(str(Path("bare/0af3")))
    with pytest.raises(InputError, match=rf"without images; bare: files without .* \(1, such as {bare}\); put .*$"):
        keys("bare")
    with pytest.raises(InputError, match=r"README\); put them in a list .*; shards are named by a pattern"):
        keys("shards")


def test_a_pattern_that_matches_more_than_images_does_not_end_a_run() -> None:
    write_images(Path("p/a"), 2)
    Path("p/b").mkdir()
    Path("p/c.png").symlink_to("gone.png")
    warnings: list[str] = []
    (piece,) = InputSources(("p/*",)).pieces(warn=warnings.append)
    assert [Path(path) for path in piece.unit.paths] == [Path("p/a/000.png"), Path("p/a/001.png"), Path("p/c.png")]
    assert warnings == [f"{Path('p/b')}: a folder without images; shards are named by a pattern, 'p/b/**/*.tar'"]
    assert "p/b*: matches nothing" in refusal("p/b*")


def test_shards_that_are_not_wanted_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write_tar(Path(f"{number}.tar"), {"x.png": b""})
    opened: list[str] = []
    real = TarShard.open
    monkeypatch.setattr(TarShard, "open", lambda location: opened.append(location) or real(location))
    result = list(InputSources(("{0..5}.tar",)).pieces(lambda number: number % 3 == 1))
    assert [(piece.number, piece.unit.location) for piece in result] == [(1, "1.tar"), (4, "4.tar")]
    assert opened == ["1.tar", "4.tar"]


def test_a_digest_tells_inputs_apart() -> None:
    units = [
        Paths(("a", "b")),
        Paths(("ab",)),
        Paths(("b", "a")),
        TarShard("a", 1),
        TarShard("a", 2),
        RowGroup("a", 1, 0, 0, 4, "image", None),
        RowGroup("a", 1, 1, 4, 4, "image", None),
        Broken("a", "b"),
    ]
    digests = {Piece(0, unit).digest for unit in units} | {Piece(1, units[0]).digest}
    assert len(digests) == len(units) + 1
    assert Piece(0, Broken("a", "another reason")).digest in digests
    assert Piece(0, Paths(("a", "b"))).digest == Piece(0, Paths(("a", "b"))).digest
