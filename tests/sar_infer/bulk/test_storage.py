"""Runs from and into object storage: a server of S3's protocol on this machine, and failures that pass."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from support.bulk_runs import answered_here, run
from support.many import small_png, write_parquet, write_tar

from sar_infer.bulk import locations
from sar_infer.bulk.locations import open_binary, patiently, size_of
from sar_infer.errors import InputError

__all__ = ["answered_here"]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """A server with the bucket ``bucket``; processes find it by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem(use_listings_cache=False)
    system.makedirs("bucket", exist_ok=True)  # servers of one process share what they hold
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def rows(system: s3fs.S3FileSystem, folder: str) -> list[dict]:
    parts = sorted(system.glob(f"{folder}/part-*"))
    return [row for piece in parts for row in pyarrow.parquet.read_table(system.open(piece)).to_pylist()]


@pytest.mark.usefixtures("answered_here")
def test_a_run_from_and_into_a_bucket(here: Path, storage: s3fs.S3FileSystem) -> None:
    for number in range(3):
        storage.pipe_file(f"bucket/photos/{number}.png", small_png(number))
        shard = write_tar(here / "s.tar", {"x.png": small_png(10 + number)})
        storage.put_file(str(shard), f"bucket/shards/{number}.tar")
    storage.put_file(str(write_parquet(here / "t.parquet", {"image": [small_png(20)]})), "bucket/t.parquet")
    Path("all.txt").write_text("s3://bucket/photos/1.png\ns3://bucket/gone.png\n")
    storage.put_file("all.txt", "bucket/all.txt")
    sources = ["s3://bucket/photos", "s3://bucket/shards/*.tar", "s3://bucket/t.parquet", "s3://bucket/all.txt"]
    arguments = [*sources, "--out", "s3://bucket/answers", "--piece-size", "2"]
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.endswith("1 set aside, see s3://bucket/answers/_rejected.jsonl\n")
    written = rows(storage, "bucket/answers")
    assert [row["key"] for row in written] == [
        *(f"s3://bucket/photos/{n}.png" for n in range(3)),
        *(f"s3://bucket/shards/{n}.tar/x.png" for n in range(3)),
        "s3://bucket/t.parquet#0",
        "s3://bucket/photos/1.png",
        "s3://bucket/gone.png",
    ]
    assert [row["error_kind"] for row in written] == [None] * 8 + ["unreadable"]
    (lost,) = storage.glob("bucket/answers/part-000003-*")
    storage.rm_file(lost)
    again = run(*arguments, "--resume")
    assert again.exit_code == 1
    assert rows(storage, "bucket/answers") == written
    counts = json.loads(storage.cat_file("bucket/answers/_SUCCESS.json"))["summary"]
    assert (counts["inputs"], counts["pieces"], counts["resumed"]) == (9, 7, 6)


@pytest.mark.usefixtures("answered_here")
def test_no_bucket_is_made(here: Path, storage: s3fs.S3FileSystem) -> None:
    (here / "a.png").write_bytes(small_png(1))
    result = run("a.png", "--out", "s3://bukcet/answers")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "Error: s3://bukcet/answers/_job.json: cannot be written: The specified bucket does not exist"
    )
    assert not storage.exists("bukcet")


class Failing:
    """A call that fails some times before it gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


def test_failures_that_pass_are_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "_WAITS", (0.01, 0.02, 0.03))
    start = time.monotonic()
    assert patiently(Failing(OSError("reset"), TimeoutError(), RuntimeError("503"))) == 7
    assert time.monotonic() - start >= 0.06
    with pytest.raises(OSError, match="for good"):
        patiently(Failing(*[OSError("for good")] * 4))
    for error in (FileNotFoundError("x"), PermissionError("x"), InputError("x")):
        with pytest.raises(type(error)):
            patiently(Failing(error))


def test_a_stream_goes_on_where_a_read_failed(monkeypatch: pytest.MonkeyPatch, storage: s3fs.S3FileSystem) -> None:
    content = bytes(range(256)) * 20_000
    storage.pipe_file("bucket/big", content)
    monkeypatch.setattr(locations, "_WAITS", (0.0, 0.0))
    storage.default_block_size = 2**20
    real, starts = s3fs.S3File._fetch_range, []

    def fetch(self: s3fs.S3File, start: int, end: int) -> bytes:
        starts.append(start)
        if len(starts) % 3:
            raise ConnectionResetError("two of three times")
        return real(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", fetch)
    assert size_of("s3://bucket/big") == len(content)
    with open_binary("s3://bucket/big") as stream:
        assert stream.read(1000) == content[:1000]
        assert stream.seek(-1000, 2) == len(content) - 1000
        assert stream.read() == content[-1000:]
        stream.seek(5)
        assert stream.read() == content[5:]
    assert len(starts) >= 9
    assert starts[::3] == starts[1::3] == starts[2::3]
