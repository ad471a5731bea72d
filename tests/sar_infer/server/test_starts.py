"""Worker processes that are killed while they start: at the server's start, under load, at any moment."""

from __future__ import annotations

import os
import random
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
from support.pictures import jpeg
from support.servers import local_server, ready_workers, wait_for
from support.servers import workers as worker_pids

from sar_infer.server.model import supervisor
from sar_infer.server.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
LONGEST = 0.5
"""Seconds after which even a slow start is nearly over."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("delay", [0.001, 0.005, 0.05])
def test_a_start_whose_worker_is_killed_ends_with_one_line(path: Path, delay: float) -> None:
    command = [sys.executable, "-m", "sar_infer.cli.serve", "--bundle", str(path), "--workers", "2", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: worker_pids(process.pid))
            time.sleep(delay)
            os.kill(worker_pids(process.pid)[0], signal.SIGKILL)
            _, errors = process.communicate(timeout=200)
        finally:
            process.kill()
    assert (process.returncode, errors.count("\n")) == (2, 1), errors
    assert "exit code -9" in errors


@pytest.mark.parametrize("kills", [6, pytest.param(1000, marks=pytest.mark.nightly)])
def test_workers_that_are_killed_at_any_moment_of_their_start_are_replaced_and_cost_no_answer(
    path: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker answers; whichever takes the place of the other is killed before it is ready."""
    monkeypatch.setattr(supervisor, "PAUSE", 0)
    chance, stop = random.Random(0), threading.Event()
    settings = Settings(bundle=path, device="cpu", threads=1, workers=2)

    def ask(url: str) -> list[int]:
        with httpx2.Client(timeout=60, headers={"Content-Type": "image/jpeg"}) as client:
            codes = []
            while not stop.is_set():
                codes.append(client.post(f"{url}/v1/classify", content=jpeg()).status_code)
            return codes

    with local_server(settings) as server, ThreadPoolExecutor(1) as pool:
        client = pool.submit(ask, server.url)
        try:
            answering, other = sorted(ready_workers(server))
            os.kill(other, signal.SIGKILL)
            killed, early = {other}, 0
            delays = [0, 0.001, 0.005, 0.05, *(chance.uniform(0, LONGEST) for _ in range(10 * kills))]
            for delay in delays:
                wait_for(lambda: set(worker_pids(os.getpid())) - killed - {answering})
                (pid,) = set(worker_pids(os.getpid())) - killed - {answering}
                time.sleep(delay)
                early += pid not in ready_workers(server)
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
                if early == kills:
                    break
            wait_for(lambda: len(ready_workers(server) - killed) == 2)
        finally:
            stop.set()
        codes = client.result()
    assert early == kills
    assert set(codes) == {200}
