"""Graphs that never end or need too much memory: they are refused in time, and SIGTERM ends the process."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx2
import pytest
from support.bundles import write_bundle
from support.hostile_graphs import endless
from support.pictures import jpeg
from support.servers import local_server, serving

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders import embedder
from sar_infer.errors import BundleError
from sar_infer.server.model import workers
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the first run of a graph two seconds."""
    for module in (embedder, workers):
        monkeypatch.setattr(module, "TRIAL_SECONDS", 2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("encoder", "above"), [(IMAGE_ENCODER, 0), (IMAGE_ENCODER, 1), (NAME_ENCODER, 0)])
def test_an_endless_graph_is_refused_in_time(bundle_copy: Path, encoder: str, above: int, workers: int) -> None:
    """With ``above``, only batches never end."""
    endless(bundle_copy, encoder, above)
    settings = Settings(bundle=bundle_copy, device="cpu", threads=1, workers=workers, max_batch=1 + above)
    with pytest.raises(BundleError) as refused:
        Service(settings)
    assert str(refused.value) == f"{bundle_copy / encoder}: the graph has given no answer within 2 s"


@pytest.mark.usefixtures("impatient")
def test_a_reload_of_an_endless_bundle_is_refused_and_leaves_nothing_running(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle")
    with local_server(Settings(bundle=path, key="k", device="cpu", threads=1)) as server:
        endless(path)
        refused = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
        assert "no answer within 2 s" in refused.json()["detail"]
        assert "background" not in {thread.name for thread in threading.enumerate()}
        answer = httpx2.post(f"{server.url}/v1/classify", content=jpeg(), headers={"Content-Type": "image/jpeg", **KEY})
        assert answer.status_code == 200


def test_sigterm_ends_a_server_whose_graph_hangs_in_a_request(bundle_copy: Path) -> None:
    endless(bundle_copy, NAME_ENCODER, above=1)
    with serving("--bundle", str(bundle_copy), "--set", "deadline=0.5", "--set", "drain=1") as server:
        answer = httpx2.post(f"{server.url}/v1/embeddings", json={"input": ["one", "two"]}, timeout=60)
        assert answer.status_code == 504
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
