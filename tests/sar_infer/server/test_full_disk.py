"""A disk that fills up under a running server: changes are refused, nothing is lost, and it goes on when there is room.

The kernel refuses to let the server write a file longer than the bank is now, as a full disk would.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from support.pictures import jpeg
from support.servers import serving

from sar_infer.bank import ClassBank

resource = pytest.importorskip("resource")
CHANGES: dict[str, Callable[[httpx2.Client], httpx2.Response]] = {
    "a class": lambda client: client.put("/v1/classes/violet"),
    "phrases": lambda client: client.put("/v1/classes/mug", json={"phrases": ["a mug", "a cup"]}),
    "a photo": lambda client: client.put("/v1/classes/mug", content=jpeg(), headers={"Content-Type": "image/jpeg"}),
    "removal": lambda client: client.delete("/v1/classes/mug"),
}


def test_a_full_disk_refuses_changes_and_loses_nothing(bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "bank.safetensors"
    options = ("--bundle", str(bundle_path), "--bank", str(file), "--no-access-log")
    with serving(*options, key="k") as server, httpx2.Client(base_url=server.url, headers=server.headers) as client:
        assert client.put("/v1/classes/mug").status_code == 201
        etag, content = client.get("/v1/classes").headers["etag"], file.read_bytes()
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (len(content), limits[1]))
        for what, change in CHANGES.items():
            answer = change(client)
            assert (answer.status_code, answer.headers["content-type"]) == (507, "application/problem+json"), what
            assert answer.json()["code"] == "not-stored", what
            assert "was not made" in answer.json()["detail"], what
            assert client.get("/v1/classes").headers["etag"] == etag, what
            assert file.read_bytes() == content, what
            assert list(tmp_path.iterdir()) == [file], what
        photo = client.post("/v1/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"})
        assert (photo.status_code, client.get("/readyz").status_code) == (200, 200)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        for what, change in CHANGES.items():
            assert change(client).is_success, what
    bank = ClassBank.load(file)
    assert [step.action for step in bank.history] == ["add", "add", "add", "add", "remove"]
    assert "mug" not in bank.names
    assert "violet" in bank.names
