from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import fsspec
import pytest
from support.folders import listing
from support.many import small_png, write_tar

from sar_infer.bulk import items
from sar_infer.bulk.items import MOST_BYTES, Flaw, Item
from sar_infer.bulk.sources.tars import TarShard
from sar_infer.bulk.sources.tars import members as headers_of
from sar_infer.errors import InputError


def contents(path: Path) -> dict[str, bytes | str | Flaw]:
    """By key without the shard's own part; the shard itself is ``""``."""
    found = list(TarShard.open(str(path)).items())
    assert len({item.key for item in found if item}) == sum(item is not None for item in found)
    return {item.key.removeprefix(str(path))[1:]: item.source for item in found if item is not None}


def test_images_come_in_order_and_other_members_do_not(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s.tar",
        {"b.png": small_png(1), "b.json": b"{}", "b.cls": b"1", "a/a.JPG": b"x", "a/.b.png": b"", "c.seg.png": b"y"},
    )
    assert contents(path) == {"b.png": small_png(1), "a/a.JPG": b"x", "c.seg.png": b"y"}
    assert [item is None for item in TarShard.open(str(path)).items()] == [False, True, True, False, True, False]


def test_storage(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"b.png": small_png(1)})
    fsspec.filesystem("memory").pipe_file("/tars/s.tar", path.read_bytes())
    assert list(TarShard.open("memory://tars/s.tar").items()) == [Item("memory://tars/s.tar/b.png", small_png(1))]


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


def test_times_in_a_header_of_gnu_tar_are_no_part_of_a_name(tmp_path: Path) -> None:
    """An incremental archive has them where POSIX has the start of a long name; Python's reader mixes them up."""
    member = tarfile.TarInfo("d/x.png")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[345:357] = b"15302437341\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "s.tar").write_bytes(header + bytes(1024))
    assert contents(tmp_path / "s.tar") == {"d/x.png": b""}


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
    with pytest.raises(InputError, match="not a file"):
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


# ------------------------------------------------------------------------------------------------------ hostile headers
def block(name: str, kind: bytes, size: int) -> bytes:
    """One header as GNU tar writes it."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return block("pax", kind, len(content)) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` and the end of a line; LENGTH is that of all of it."""
    rest = b" " + key + b"=" + value + b"\n"
    digits = next(digits for digits in range(1, 20) if len(str(len(rest) + digits)) == digits)
    return str(len(rest) + digits).encode() + rest


def old_sparse(name: str, size: int, parts: int) -> bytes:
    """A sparse file of GNU tar with parts of a byte each, whose map fills blocks behind the header."""
    header = bytearray(block(name, tarfile.GNUTYPE_SPARSE, parts))
    header[482] = 1
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    entries = [b"%011o\0%011o\0" % (number * (size // parts), 1) for number in range(parts)]
    blocks = [b"".join(entries[first : first + 21]) for first in range(0, parts, 21)]
    maps = [data.ljust(504, b"\0") + bytes([number + 1 < len(blocks)]) + bytes(7) for number, data in enumerate(blocks)]
    return bytes(header) + b"".join(maps) + padded(b"x" * parts)


GOOD = block("good.png", tarfile.REGTYPE, 1) + padded(b"1")
END = bytes(1024)
SPARSE = Flaw("unreadable", "cannot be read: a sparse file in the shard; pack it again without --sparse")
HUGE = 100 * 2**20


@pytest.mark.parametrize("kind", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_a_sparse_file_has_its_row_and_costs_nothing(tmp_path: Path, kind: str) -> None:
    """Of a hundred kilobytes, tarfile makes 100 MiB for every image, piece by piece, in more than a minute."""
    parts = 2000
    places = [number * (HUGE // parts) for number in range(parts)]
    size = str(HUGE).encode()
    if kind == "gnu":
        bomb = old_sparse("bomb.png", HUGE, parts)
    elif kind == "pax 0.0":
        pairs = [record(b"GNU.sparse.offset", b"%d" % at) + record(b"GNU.sparse.numbytes", b"1") for at in places]
        bomb = pax(record(b"GNU.sparse.size", size) + record(b"GNU.sparse.numblocks", b"2000") + b"".join(pairs))
    elif kind == "pax 0.1":
        mapped = b",".join(b"%d,1" % at for at in places)
        named = record(b"GNU.sparse.name", b"bomb.png")
        bomb = pax(named + record(b"GNU.sparse.map", mapped) + record(b"GNU.sparse.size", size))
    else:
        versions = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
        bomb = pax(versions + record(b"GNU.sparse.name", b"bomb.png") + record(b"GNU.sparse.realsize", size))
    if kind != "gnu":
        mapped = padded(b"%d\n" % parts + b"".join(b"%d\n1\n" % at for at in places)) if kind == "pax 1.0" else b""
        name = "bomb.png" if kind == "pax 0.0" else "GNUSparseFile.0/bomb.png"
        content = mapped + b"x" * parts
        bomb += block(name, tarfile.REGTYPE, len(content)) + padded(content)
    path = tmp_path / "s.tar"
    path.write_bytes(bomb + GOOD + END)
    assert path.stat().st_size < 120_000
    assert contents(path) == {"bomb.png": SPARSE, "good.png": b"1"}


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("options", ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax"])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: str) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(small_png(1))
    with (tmp_path / "hole.png").open("wb") as stream:
        for part in range(60):  # more than a header's own map has room for
            stream.seek(part * 100_000)
            stream.write(b"x")
    command = ["tar", "-C", tmp_path, "--sparse", *options.split(), "-cf", tmp_path / "s.tar"]
    done = subprocess.run([*command, "a.png", "hole.png", "b.png"], capture_output=True)
    if done.returncode:
        pytest.skip("needs GNU tar")
    found = contents(tmp_path / "s.tar")
    if found["hole.png"] != SPARSE:
        pytest.skip("a file system without holes")
    assert found == {"a.png": small_png(1), "hole.png": SPARSE, "b.png": small_png(1)}


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (block("a.png", tarfile.REGTYPE, -512), "damaged at byte 1024: a size of -512"),
        (pax(record(b"size", b"-1024")) + GOOD, "a header gives '-1024' as a size"),
        (pax(record(b"size", b"9" * 5000)) + GOOD, f"a header gives '{'9' * 40}' as a size"),
        (pax(b"2 " * 50_000 + b"=") + GOOD, "a damaged pax header"),
        (pax(b"0 a=b\n") + GOOD, "a damaged pax header"),
        (pax(b"99 path=b\n") + GOOD, "a damaged pax header"),
        (pax(b"1" * 100_000) + GOOD, "a damaged pax header"),
        (pax(b"9" * 2**20 + b"9") + GOOD, f"a header of {2**20 + 1} bytes"),
        (block("a.png", tarfile.GNUTYPE_LONGNAME, 5000) + b"a" * 100, "it ends inside a header"),
        (old_sparse("a.png", 2**20, 100)[:1536], "it ends inside a header"),
    ],
)
def test_hostile_headers_end_the_shard_with_a_row(tmp_path: Path, bomb: bytes, reason: str) -> None:
    """The first of them has no end in tarfile, the fourth takes gigabytes."""
    path = tmp_path / "s.tar"
    path.write_bytes(GOOD + bomb + (END if "inside" not in reason else b""))
    assert contents(path) == {"good.png": b"1", "": Flaw("source", f"the rest cannot be read: {reason}")}


def test_headers_are_not_kept(tmp_path: Path) -> None:
    """Records for all that follow are not copied for every member, and a long name behind another is no recursion."""
    path = tmp_path / "s.tar"
    records = b"".join(record(b"k%d" % number, b"") for number in range(20_000))
    names = b"".join(block("x", tarfile.GNUTYPE_LONGNAME, 10) + padded(b"%09d\0" % number) for number in range(2000))
    members = b"".join(block(f"{number}.png", tarfile.REGTYPE, 1) + padded(b"1") for number in range(1000))
    path.write_bytes(pax(records, tarfile.XGLTYPE) + members + names + GOOD + END)
    assert list(contents(path).values()) == [b"1"] * 1000
    assert len([*TarShard.open(str(path)).items()]) == 1001


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_are_read_as_python_reads_them(tmp_path: Path, form: int) -> None:
    names = ["a.png", "d" * 60 + "/" + "e" * 60 + "/b.png", "c/c.png", "link.png", "z.txt", "d.png"]
    if form != tarfile.USTAR_FORMAT:
        names += ["f" * 300 + ".png", "é" * 150 + "/ü.png", "g\udcff" + "g" * 200 + ".png"]
    path = tmp_path / "s.tar"
    headers = {"comment": "of all"} if form == tarfile.PAX_FORMAT else None
    with tarfile.open(path, "w", format=form, errors="surrogateescape", pax_headers=headers) as tar:
        for number, name in enumerate(names):
            if number == 2:
                folder = tarfile.TarInfo("c")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
            member = tarfile.TarInfo(name)
            member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            member.size = number * 300
            if name == "link.png":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "x" * 90, 0
            tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
    with tarfile.open(path) as tar, path.open("rb") as stream:
        known = [(m.name, m.type, m.offset_data, m.size) for m in tar]
        assert [(m.name, m.kind, m.start, m.size) for m in headers_of(stream)] == known
    assert len(known) == len(names) + 1
