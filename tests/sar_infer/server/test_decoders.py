"""Processes that decode ahead of one that encodes, as with a GPU or too little memory for copies of the encoder."""

from __future__ import annotations

import base64
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support import faults
from support.bundles import write_bundle
from support.faults import CRASHES, GROWS, HANGS
from support.hanging import plant
from support.pictures import jpeg
from support.servers import Local, local_server, wait_for

from sar_infer.processes.worker import DeathError
from sar_infer.server.settings import Limits, Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
KEY = {"Authorization": "Bearer k"}
GOOD = jpeg()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    limits = Limits(image_seconds=1, queue=100)
    bundle, bank = write_bundle(tmp_path / "bundle"), tmp_path / "bank.safetensors"
    return Settings(bundle=bundle, bank=bank, key="k", device="cpu", threads=1, workers=2, decoders=2, limits=limits)


@pytest.fixture
def flawed(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    plant(tmp_path / "flaw", monkeypatch, faults.flawed, faults.PROCESS)
    with local_server(settings) as local:
        yield local


def classify(url: str, image: bytes = GOOD) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/classify", content=image, headers={"Content-Type": "image/jpeg", **KEY}, timeout=60)


def pids(server: Local) -> set[int]:
    return {pid for one in server.service.engine.processes for pid in one.pids}


def test_the_process_that_encodes_survives_what_hangs_crashes_or_bloats_a_decoder(flawed: Local) -> None:
    assert flawed.service.engine.workers is None
    with ThreadPoolExecutor(16) as pool:
        images = [GOOD, HANGS, *[GOOD] * 5, CRASHES, *[GOOD] * 5, GROWS]
        answers = [one.result() for one in [pool.submit(classify, flawed.url, image) for image in images]]
    codes = [(answer.status_code, answer.json().get("code")) for answer in answers]
    assert codes[1] == codes[7] == (422, "undecodable-image")
    assert codes[13] == (413, "image-too-large")
    assert {code for n, code in enumerate(codes) if n not in (1, 7, 13)} == {(200, None)}
    assert "takes more than 1 s" in answers[1].json()["detail"]
    assert flawed.metric("sar_worker_deaths_total", reason="time") >= 1
    wait_for(lambda: flawed.metric("sar_workers") == 2)
    assert flawed.metric("sar_decode_memory_held_bytes") == 0


def test_decoders_that_die_idle_or_under_load_are_replaced_and_nothing_is_lost(settings: Settings) -> None:
    with local_server(settings) as server:
        killed: set[int] = set()
        for _ in range(3):
            wait_for(lambda: len(pids(server) - killed) == 2)
            victim = min(pids(server) - killed)
            killed.add(victim)
            with ThreadPoolExecutor(8) as pool:
                sent = [pool.submit(classify, server.url) for _ in range(16)]
                os.kill(victim, signal.SIGKILL)
                assert {one.result().status_code for one in sent} == {200}
        left = pids(server)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in left))


def test_readiness_tells_that_nothing_is_decoded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "flaw", monkeypatch, faults.deadly, faults.PROCESS)
    with local_server(settings) as server:
        wait_for(lambda: "died one after the other" in httpx2.get(f"{server.url}/readyz", timeout=60).text)
        assert httpx2.get(f"{server.url}/readyz", timeout=60).status_code == 503
        assert classify(server.url).status_code == 503


def test_an_image_is_not_to_blame_for_the_process_that_encodes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(images: Any, alone: bool) -> Any:
        raise DeathError(-6)

    with local_server(replace(settings, processes=True, workers=1, decoders=1)) as server:
        monkeypatch.setattr(server.service.engine._batcher, "_compute", dies)
        answer = classify(server.url)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_answers_and_photos_of_a_class_are_those_of_one_process(settings: Settings) -> None:
    pictures = [jpeg(), jpeg((90, 60)), jpeg((400, 30))]
    body = {"images": [base64.b64encode(one).decode() for one in pictures], "top_k": 3}
    answers, kept = [], []
    for number, (processes, decoders) in enumerate([(False, 0), (False, 2), (True, 1)]):
        bank = settings.bank.with_name(f"{number}.safetensors")  # type: ignore[union-attr]
        with local_server(replace(settings, processes=processes, decoders=decoders, bank=bank)) as server:
            found = httpx2.post(f"{server.url}/v1/classify", json=body, headers=KEY, timeout=60).json()
            answers.append([result["predictions"] for result in found["results"]])
            made = httpx2.put(f"{server.url}/v1/classes/new", json={"images": body["images"]}, headers=KEY, timeout=60)
            assert made.status_code in (200, 201), made.text
            kept.append(server.service.store.bank.photos["new"].digests.tobytes())
    assert answers[0] == answers[1] == answers[2]
    assert kept[0] == kept[1] == kept[2]
