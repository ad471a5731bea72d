from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import fsspec
import pytest
from support.folders import listing
from support.many import picture, write_tar

from sar_infer.bulk import items
from sar_infer.bulk.items import Flaw, Item
from sar_infer.bulk.sources import tars
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.errors import InputError


def contents(path: Path) -> dict[str, bytes | str | Flaw]:
    """By key without the shard's own part; the shard itself is ``""``."""
    found = list(TarShard.open(str(path)).items())
    assert len({item.key for item in found if item}) == sum(item is not None for item in found)
    return {item.key.removeprefix(str(path))[1:]: item.source for item in found if item is not None}


def test_images_come_in_order_and_other_members_do_not(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s.tar",
        {"b.png": picture(1), "b.json": b"{}", "b.cls": b"1", "a/a.JPG": b"x", "a/.b.png": b"", "c.seg.png": b"y"},
    )
    assert contents(path) == {"b.png": picture(1), "a/a.JPG": b"x", "c.seg.png": b"y"}
    assert [item is None for item in TarShard.open(str(path)).items()] == [False, True, True, False, True, False]


def test_storage(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"b.png": picture(1)})
    fsspec.filesystem("memory").pipe_file("/tars/s.tar", path.read_bytes())
    assert list(TarShard.open("memory://tars/s.tar").items()) == [Item("memory://tars/s.tar/b.png", picture(1))]


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
    found = contents(path)
    flaw = Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    assert {name for name, content in found.items() if content == flaw} == {"dev.png", "link.png", "hard.png"}
    assert {name for name, content in found.items() if content == b"x"} == {
        "/etc/passwd.png", "../../up.png", "C:\\x.png", "x\n.png"
    }  # fmt: skip
    assert listing(tmp_path) == ["s.tar"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(tarfile.TarInfo("\udcff.png"))
    assert list(contents(path)) == ["\\xff.png"]


def test_a_huge_member_is_set_aside_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MOST_BYTES", 10)
    path = write_tar(tmp_path / "s.tar", {"a.png": b"x" * 11, "b.png": b"x" * 10})
    found = contents(path)
    assert found == {"a.png": Flaw("size", "too large: 11 bytes, at most 10"), "b.png": b"x" * 10}


def test_a_member_that_claims_terabytes(tmp_path: Path) -> None:
    member = tarfile.TarInfo("bomb.png")
    member.size = 2**42
    path = tmp_path / "s.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    found = contents(path)
    assert found["bomb.png"] == Flaw("size", f"too large: {2**42} bytes, at most {items.MOST_BYTES}")
    assert found[""].kind == "source"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE])
def test_a_header_that_claims_terabytes(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 2**42
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1"})
    path.write_bytes(path.read_bytes()[:1024] + member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10240)
    flaw = Flaw("source", f"the rest cannot be read: a header of {2**42} bytes")
    assert contents(path) == {"a.png": b"1", "": flaw}


@pytest.mark.parametrize("cut", ["in a picture", "in a header", "between members", "before the end mark"])
def test_a_cut_shard_gives_what_is_whole_and_says_so(tmp_path: Path, cut: str) -> None:
    first, second = picture(1), picture(2)
    path = write_tar(tmp_path / "s.tar", {"a.png": first, "b.png": second})
    data, start = path.read_bytes(), 512 + -(-len(first) // 512) * 512
    end = start + 512 + -(-len(second) // 512) * 512
    at = {
        "in a picture": start + 600,
        "in a header": start + 100,
        "between members": start,
        "before the end mark": end,
    }[cut]
    path.write_bytes(data[:at])
    found = contents(path)
    assert found["a.png"] == first
    assert (found.get("b.png") == second) == (cut == "before the end mark")
    flaw = found[""]
    assert isinstance(flaw, Flaw)
    assert flaw.kind == "source"
    assert flaw.reason.startswith("the rest cannot be read: ")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b"2", "c.png": b"3"})
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 0xFF
    path.write_bytes(data)
    assert contents(path) == {"a.png": b"1", "": Flaw("source", "the rest cannot be read: damaged at byte 1024")}


@pytest.mark.parametrize(
    "data", [b"", b"no tar", b"\xff" * 2000, b"\0" * 10240], ids=["empty", "text", "noise", "zeros"]
)
def test_what_is_no_tar(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    assert [flaw.kind for flaw in contents(path).values()] == ["source"]


@pytest.mark.parametrize("second", ["a hole", "another archive"])
def test_what_follows_the_end_is_not_passed_over(tmp_path: Path, second: str) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b"2"})
    if second == "a hole":
        data = bytearray(path.read_bytes())
        data[1024:1536] = bytes(512)
        path.write_bytes(data)
    else:
        path.write_bytes(path.read_bytes() + write_tar(tmp_path / "t.tar", {"c.png": b"3"}).read_bytes())
    found = contents(path)
    assert set(found) == ({"a.png", ""} if second == "a hole" else {"a.png", "b.png", ""})
    assert "more follows the mark of an end" in found[""].reason


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(InputError, match="cannot be read: not a file"):
        TarShard.open(str(tmp_path / "s.tar"))


def test_every_single_flipped_byte_of_a_header_is_survived(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": b"1", "b.png": b"2"})
    data = path.read_bytes()
    for at in range(1024, 1536):
        damaged = bytearray(data)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        found = contents(path)
        assert found["a.png"] == b"1"
        assert len(found) >= 2 or damaged[1024:1536] == data[1024:1536]
