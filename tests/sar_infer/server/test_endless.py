"""Graphs that never end or need too much memory: they are refused in time, and SIGTERM ends the process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from support.bundles import write_bundle
from support.hostile_graphs import endless, huge
from support.pictures import jpeg
from support.servers import local_server, serving

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders import embedder
from sar_infer.errors import BundleError
from sar_infer.server.model import opening
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}
TELLS = """
import sar_infer.encoders.encoders as e
from sar_infer.cli.serve import main

def tell(*arguments):
    print("on trial", flush=True)
    return within(*arguments)

within, e.within = e.within, tell
main()
"""
"""Prints a line when the first run of a graph begins."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the first run of a graph two seconds."""
    for module in (embedder, opening):
        monkeypatch.setattr(module, "TRIAL_SECONDS", 2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("encoder", "above"), [(IMAGE_ENCODER, 0), (IMAGE_ENCODER, 1), (NAME_ENCODER, 0)])
def test_an_endless_graph_is_refused_in_time(bundle_copy: Path, encoder: str, above: int, workers: int) -> None:
    """With ``above``, only batches never end."""
    endless(bundle_copy, encoder, above)
    settings = Settings(bundle=bundle_copy, device="cpu", threads=1, workers=workers, max_batch=1 + above)
    with pytest.raises(BundleError) as refused:
        Service.open(settings)
    assert str(refused.value) == f"{bundle_copy / encoder}: the graph has given no answer within 2 s"


def test_a_graph_that_asks_for_terabytes_is_refused_in_one_line(bundle_copy: Path) -> None:
    huge(bundle_copy)
    with pytest.raises(BundleError) as refused:
        Service.open(Settings(bundle=bundle_copy, device="cpu", threads=1))
    assert str(refused.value).startswith(f"{bundle_copy / IMAGE_ENCODER}: onnxruntime cannot run this graph: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "sent", "code", "says"),
    [
        (["--check"], signal.SIGTERM, 0, ""),
        (["--check"], signal.SIGINT, 1, "Aborted!\n"),
        (["--port", "0", "--workers", "0"], signal.SIGTERM, 0, ""),
    ],
)
def test_a_signal_ends_a_start_that_never_ends(
    bundle_copy: Path, arguments: list[str], sent: signal.Signals, code: int, says: str
) -> None:
    endless(bundle_copy)
    command = [sys.executable, "-c", TELLS, "--bundle", str(bundle_copy), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]  # of the name encoder, and of the endless one
        process.send_signal(sent)
        rest = process.communicate(timeout=30)
    assert (process.returncode, lines, rest) == (code, ["on trial\n"] * 2, ("", says))


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


def test_sigterm_ends_a_server_while_a_reload_never_ends(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle")
    options = ("--bundle", str(path), "--drain", "1", "--workers", "0")
    with ThreadPoolExecutor(1) as pool:
        with serving(*options, key="k", python=("-c", TELLS)) as server:
            shutil.rmtree(path)
            endless(write_bundle(path))
            before = server.log.read_text().count("on trial")
            reload = pool.submit(httpx2.post, f"{server.url}/v1/reload", headers=KEY, timeout=60)
            while server.log.read_text().count("on trial") < before + 2:
                assert not reload.done()
                time.sleep(0.02)
            server.process.send_signal(signal.SIGHUP)
            server.process.terminate()
            assert server.process.wait(60) == 0
            assert "Traceback" not in server.log.read_text()
        assert reload.result().status_code == 503


def test_sigterm_ends_a_server_whose_graph_hangs_in_a_request(bundle_copy: Path) -> None:
    endless(bundle_copy, NAME_ENCODER, above=1)
    with serving("--bundle", str(bundle_copy), "--deadline", "0.5", "--drain", "1") as server:
        answer = httpx2.post(f"{server.url}/v1/embeddings", json={"input": ["one", "two"]}, timeout=60)
        assert answer.status_code == 504
        assert httpx2.get(f"{server.url}/healthz").status_code == 200


def test_sigterm_ends_a_server_whose_shutdown_hangs(bundle_path: Path, tmp_path: Path) -> None:
    code = """
import time
from sar_infer.cli.serve import main
from sar_infer.server.service import Service

Service.close = lambda self: time.sleep(600)
main()
"""
    log = tmp_path / "log"
    command = [sys.executable, "-c", code, "--port", "0", "--bundle", str(bundle_path), "--drain", "0"]
    with log.open("wb") as stream, subprocess.Popen(command, stderr=stream) as process:
        try:
            while "Serving " not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            process.terminate()
            assert process.wait(60) == 1
        finally:
            process.kill()
