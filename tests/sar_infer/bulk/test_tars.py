from __future__ import annotations

import gc
import io
import os
import tarfile
from pathlib import Path

import pytest
from support.folders import listing
from support.many import small_png, write_tar

from sar_infer.bulk.chunks import Chunk, batches
from sar_infer.bulk.containers import MOST_BYTES, Flaw, Item


def contents(path: Path) -> dict[str, bytes | str | Flaw]:
    """By key without the shard's own part; the shard itself is ``""``."""
    members = items(path)
    assert len({item.key for item in members}) == len(members)
    return {item.key.removeprefix(str(path))[1:]: item.source for item in members}


def items(path: Path) -> list[Item]:
    return [*Chunk(0, (str(path),)).items("image", None)]


def test_images_come_in_order_and_other_members_do_not(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s.tar",
        {"b.png": small_png(1), "b.json": b"{}", "b.cls": b"1", "a/a.JPG": b"x", "a/.b.png": b"", "c.seg.png": b"y"},
    )
    assert contents(path) == {"b.png": small_png(1), "a/a.JPG": b"x", "c.seg.png": b"y"}


def test_odd_members_are_names_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("/etc/passwd.png", "../../up.png", "C:\\x.png", "x\n.png", "dev.png", "link.png", "hard.png"):
            member = tarfile.TarInfo(name)
            if name in ("dev.png", "link.png", "hard.png"):
                member.type = {"d": tarfile.CHRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}[name[0]]
                member.linkname = "/etc/passwd"
            else:
                member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    members = contents(path)
    flaw = Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    assert {name for name, content in members.items() if content == flaw} == {"dev.png", "link.png", "hard.png"}
    assert {name for name, content in members.items() if content == b"x"} == {
        "/etc/passwd.png", "../../up.png", "C:\\x.png", "x\n.png"
    }  # fmt: skip
    assert listing(tmp_path) == ["s.tar"]


def test_names_that_are_no_utf8_have_a_key_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name in ("\udcff.png", "\\xff.png", "\\x5cxff.png", "a\\b.png"):
            tar.addfile(tarfile.TarInfo(name))
    assert list(contents(path)) == ["\\xff.png", "\\x5cxff.png", "\\x5cx5cxff.png", "a\\b.png"]


def test_a_huge_member_is_set_aside_unread(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    huge, small = tarfile.TarInfo("a.png"), tarfile.TarInfo("b.png")
    huge.size, small.size = MOST_BYTES + 1, 10
    with path.open("wb") as file:  # with a hole
        file.write(huge.tobuf())
        file.seek(MOST_BYTES + 512, os.SEEK_CUR)
        file.write(small.tobuf() + bytes(3 * 512))
    flaw = Flaw("size", f"too large: {MOST_BYTES + 1} bytes, at most {MOST_BYTES}")
    assert contents(path) == {"a.png": flaw, "b.png": bytes(10)}


@pytest.mark.parametrize("cut", ["in an image", "in a header", "between members", "before the end mark"])
def test_a_cut_shard_gives_what_is_whole_and_says_so(tmp_path: Path, cut: str) -> None:
    first, second = small_png(1), small_png(2)
    path = write_tar(tmp_path / "s.tar", {"a.png": first, "b.png": second})
    data, start = path.read_bytes(), 512 + -(-len(first) // 512) * 512
    end = start + 512 + -(-len(second) // 512) * 512
    at = {
        "in an image": start + 600,
        "in a header": start + 100,
        "between members": start,
        "before the end mark": end,
    }[cut]
    path.write_bytes(data[:at])
    members = contents(path)
    assert members["a.png"] == first
    assert (members.get("b.png") == second) == (cut == "before the end mark")
    flaw = members[""]
    assert isinstance(flaw, Flaw)
    assert flaw.kind == "source"
    assert flaw.reason.startswith("the rest cannot be read: ")


@pytest.mark.parametrize(
    "data", [b"", b"no tar", b"\xff" * 2000, b"\0" * 10240], ids=["empty", "text", "noise", "zeros"]
)
def test_files_that_are_no_tars(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    assert [flaw.kind for flaw in contents(path).values()] == ["source"]


@pytest.mark.parametrize("second", ["a hole", "another archive"])
def test_members_behind_the_end_are_not_passed_over(tmp_path: Path, second: str) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b"2"})
    if second == "a hole":
        data = bytearray(path.read_bytes())
        data[1024:1536] = bytes(512)
        path.write_bytes(data)
    else:
        path.write_bytes(path.read_bytes() + write_tar(tmp_path / "t.tar", {"c.png": b"3"}).read_bytes())
    members = contents(path)
    assert set(members) == ({"a.png", ""} if second == "a hole" else {"a.png", "b.png", ""})
    assert "more follows the mark of an end" in members[""].reason


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    assert contents(tmp_path / "s.tar") == {"": Flaw("source", "the rest cannot be read: not a file")}


def test_every_single_flipped_byte_of_a_header_is_survived(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b"2"})
    data = path.read_bytes()
    for at in range(1024, 1536):
        damaged = bytearray(data)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        members = contents(path)
        assert members["a.png"] == b"1"
        assert len(members) >= 2 or damaged[1024:1536] == data[1024:1536]


@pytest.mark.parametrize("size", [-512, -1536, -1, -(10**9)])
def test_a_negative_size_does_not_read_a_shard_for_ever(tmp_path: Path, size: int) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b""})
    data = bytearray(path.read_bytes())
    data[1024 + 124 : 1024 + 136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    path.write_bytes(data)
    members = contents(path)
    assert members["a.png"] == b"1"
    assert members[""].kind == "source"


def test_the_headers_of_a_shard_are_not_kept(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{number}.png": b"" for number in range(200)})
    for number, _ in enumerate(Chunk(0, (str(path),)).items("image", None)):
        if number == 199:
            assert sum(isinstance(thing, tarfile.TarInfo) for thing in gc.get_objects()) < 5


def test_a_batch_of_large_images_is_cut_short() -> None:
    images = [Item("", bytes(size * 2**20)) for size in (30, 40, 1, 1, 1)]
    assert [len(batch) for batch in batches(images, 4)] == [2, 3]
    assert [len(batch) for batch in batches(images[2:], 2)] == [2, 1]
