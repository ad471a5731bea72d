from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import fsspec
import pytest
from support.many import small_png, write_images, write_parquet, write_tar
from support.users import unprivileged

from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.listing import InputSources
from sar_infer.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(*arguments: str, **settings) -> list[str]:
    chunks = InputSources(arguments, **settings).chunks()
    return [item.key for chunk in chunks for item in chunk.items("image", None)]


def refusal(*arguments: str, **settings) -> str:
    with pytest.raises(InputError) as result:
        list(InputSources(arguments, **settings).chunks())
    return str(result.value)


def test_a_folder_is_listed_folder_by_folder_without_what_is_hidden() -> None:
    write_images(Path("p/b"), 2)
    write_images(Path("p/a/deep"), 1, first=7)
    write_images(Path("p/.hidden"), 1)
    for name in ("p/z.jpg", "p/A.JPG", "p/.x.png", "p/notes.md"):
        Path(name).touch()
    assert keys("p") == ["p/A.JPG", "p/z.jpg", "p/a/deep/007.png", "p/b/000.png", "p/b/001.png"]


def test_chunks_are_filled_across_arguments_and_cut_at_shards() -> None:
    write_images(Path("p"), 5)
    write_tar(Path("s.tar"), {"x.png": small_png(1)})
    write_parquet(Path("t.parquet"), {"image": [small_png(n) for n in range(6)]}, rows_of_group=4)
    chunks = list(InputSources(("p", "p/000.png", "s.tar", "t.parquet", "p"), chunk_size=4).chunks())
    assert [(chunk.number, chunk.container, chunk.count) for chunk in chunks] == [
        *((0, "", 4), (1, "", 2), (2, ".tar", None), (3, ".parquet", 4), (4, ".parquet", 2), (5, "", 4), (6, "", 1))
    ]
    assert [Chunk.parse(chunk.number, chunk.line()) for chunk in chunks] == chunks


def test_chunks_grow_with_a_long_list_which_is_never_held() -> None:
    Path("all.txt").write_text("".join(f"photos/{number:09}.jpg\n" for number in range(50_000)))
    tracemalloc.start()
    counts = [chunk.count for chunk in InputSources(("all.txt",)).chunks()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (counts[:20], sum(counts)) == ([64] * 20, 50_000)
    assert max(counts) <= 50_000 / 64
    assert len(counts) < 300
    assert peak < 2**20  # all paths are 4 MiB


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
    Path("p/named.csv").write_text("class,photo\n,x.png\nhat,'y.png\n")
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
        (["p/a*", "p/a.txt"], ["p/a.txt", "gone.png"]),
        (["p/named.csv"], ["p/x.png", "p/'y.png"]),
        (["memory://photos"], [f"memory:///photos/{name}" for name in ("a.jpg", "a/2.PNG", "b/1.png")]),
        (["memory://photos/*/1.png"], ["memory:///photos/b/1.png"]),
        (["memory://photos/?*"], [f"memory:///photos/{n}" for n in (".c.png", "a/2.PNG", "a.jpg", "b/1.png", "d.txt")]),
    ],
    ids=lambda value: value[0] if len(value) == 1 else None,
)
def test_arguments_and_their_inputs(arguments: list[str], expected: list[str]) -> None:
    assert keys(*arguments) == expected


def test_names_that_are_no_utf8_have_a_printable_key_and_open() -> None:
    Path("p").mkdir()
    Path(os.fsdecode(b"p/\xff.png")).write_bytes(small_png(1))
    Path("p/\\xff.png").write_bytes(small_png(2))
    (chunk,) = InputSources(("p",)).chunks()
    items = list(Chunk.parse(0, chunk.line()).items("image", None))
    assert {item.key: Path(str(item.source)).read_bytes() for item in items} == {
        "p/\\xff.png": small_png(1),
        "p/\\x5cxff.png": small_png(2),
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gone.png", "gone.png: no such file or folder"),
        ("s-{1..3}.tar", "s-1.tar: no such file or folder"),  # the first is looked at
        ("*.png", "matches nothing"),
        ("{5..3}.png", "matches nothing"),
        ("empty", "a folder without images"),
        ("bare", "without images; files without a suffix are passed over (1, such as bare/0af3); put them in a list"),
        ("empty.txt", "an empty list"),
        ("wide.txt", "wide.txt: a list in UTF-16; save it as UTF-8"),
        ("gone.lst", "the list cannot be read: No such file"),
        ("x.tar.gz", "compressed tar"),
        ("http://example.com/a.jpg", "web servers are not read"),
        ("https://example.com/{1..3}.tar", "web servers are not read"),
        ("ftp://example.com/a.jpg", "expected a local path or a URL of s3"),
        ("simplecache::s3://bucket/a.jpg", "expected a local path or a URL of s3"),
        ("t.parquet", "no column 'image'; it has photo"),
        ("x" * 5000, "…"),
        ("gs://bucket/a.jpg", "pip install '.[bulk]' gcsfs"),
        ("memory://nothing", "memory://nothing: no such file or folder"),
    ],
)
def test_arguments_that_stand_for_nothing_are_refused(argument: str, message: str) -> None:
    Path("empty").mkdir()
    Path("bare").mkdir()
    Path("bare/0af3").touch()
    Path("empty.txt").write_text("\n")
    Path("wide.txt").write_text("a.png\n", "utf-16")
    write_parquet(Path("t.parquet"), {"photo": [b"x"]})
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


def test_what_a_folder_passes_over_is_said() -> None:
    write_images(Path("p/deep"), 2)
    for name in ("a.tar", "deep/b.tar", "deep/c.parquet", ".hidden.tar", "z.JXL", "deep/0af3", "notes.json", ".git"):
        Path("p", name).touch()
    Path("p/link").symlink_to("deep")
    memory = fsspec.filesystem("memory")
    for name in ("/mixed/a.png", "/mixed/b.tar"):
        memory.pipe_file(name, b"x")
    warnings: list[str] = []
    chunks = list(InputSources(("p", "memory://mixed")).chunks(warn=warnings.append))
    assert [len(chunk.paths) for chunk in chunks] == [3]
    assert warnings == [
        f"left out 1 file whose format is not read (.jxl), such as {Path('p/z.JXL')}; convert to JPEG",
        f"files without a suffix are passed over (1, such as {Path('p/deep/0af3')}); put them in a list (.txt)",
        f"linked folders are passed over (1, such as {Path('p/link')}); name them too",
        ".tar files are passed over (3, such as p/a.tar); name them, or a pattern, '**/*.tar'",
        ".parquet files are passed over (1, such as p/deep/c.parquet); name them, or a pattern, '**/*.parquet'",
    ]
