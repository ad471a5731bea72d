"""A folder of banks behind one encoder."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from support.bundles import write_bundle
from support.pictures import jpeg
from support.servers import Local, local_server

from sar_infer import ClassBank, Classifier
from sar_infer.cli.bank import main as sar_bank
from sar_infer.server import fleet
from sar_infer.server.metrics import Metrics
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}
IMAGE = {"Content-Type": "image/jpeg", **KEY}
NAMES = {"shop": ("mug", "teapot"), "zoo": ("zebra", "okapi", "lion"), "a.b-c_1": ("one",)}


def make(bundle: Path, file: Path, *names: str) -> None:
    done = CliRunner().invoke(sar_bank, ["add", str(file), *names, "--bundle", str(bundle)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fleet")
    bundle, folder = write_bundle(root / "bundle"), root / "banks"
    folder.mkdir()
    for name, classes in NAMES.items():
        make(bundle, folder / f"{name}.safetensors", *classes)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Local]:
    settings = Settings(bundle=folder.parent / "bundle", banks=folder, key="k", device="cpu", threads=1)
    with local_server(settings) as local:
        yield local


@pytest.fixture
def spare(folder: Path, server: Local) -> Iterator[str]:
    """Yield the name of a bank that a test may change."""
    file = folder / "spare.safetensors"
    make(folder.parent / "bundle", file, "spare class")
    assert known(server, "spare")[-1] == "spare class"
    yield "spare"
    file.unlink(missing_ok=True)


def classify(server: Local, *banks: str, **query: Any) -> httpx2.Response:
    params = {"bank": banks, "top_k": 50, **query}
    return httpx2.post(f"{server.url}/v1/classify", content=jpeg(), params=params, headers=IMAGE, timeout=60)


def known(server: Local, bank: str) -> list[str]:
    """Return the classes of an answer, those of the bundle first."""
    answer = classify(server, bank)
    assert answer.status_code == 200, answer.text
    labels = {p["label"] for p in answer.json()["results"][0]["predictions"]}
    return sorted(labels, key=lambda label: (label not in {"red", "green", "blue", "grey"}, label))


def test_a_bank_by_name_answers_as_it_does_alone(server: Local, folder: Path) -> None:
    for name in NAMES:
        bank = ClassBank.load(folder / f"{name}.safetensors", base=server.service.engine.bundle.bank)
        classifier = Classifier.open(folder.parent / "bundle", "cpu", bank=folder / f"{name}.safetensors")
        (expected,) = classifier.classify([jpeg()], top_k=50)
        answer = classify(server, name).json()
        (result,) = answer["results"]
        assert (answer["bank"], answer["classes"]) == (bank.content_digest, len(bank.names))
        assert result["unknown"] == pytest.approx(expected.unknown, abs=1e-6)
        scores = {p["label"]: p["score"] for p in result["predictions"]}
        assert scores == pytest.approx({p.label: p.score for p in expected.predictions}, abs=1e-6)


def test_several_banks_answer_from_one_encoding_each_under_its_name(server: Local) -> None:
    before = server.metric("sar_images_total")
    answer = classify(server, "zoo", "shop").json()
    assert server.metric("sar_images_total") == before + 1
    assert list(answer["banks"]) == ["zoo", "shop"]
    for name, own in answer["banks"].items():
        alone = classify(server, name).json()
        assert {field: alone[field] for field in own} == own


def test_names_of_the_call_and_other_protocols_have_the_bank_too(server: Local) -> None:
    labels = {p["label"] for p in classify(server, "zoo", classes="gnu").json()["results"][0]["predictions"]}
    assert {"gnu", "okapi"} <= labels
    tensor = {"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(jpeg()).decode()]}
    call = {"inputs": [tensor], "parameters": {"top_k": 50}}
    answer = httpx2.post(f"{server.url}/v2/models/zoo/infer", json=call, headers=KEY, timeout=60).json()
    (found,) = [output["data"] for output in answer["outputs"] if output["name"] == "LABELS"]
    assert (answer["model_name"], set(found)) == ("zoo", set(known(server, "zoo")))


def test_banks_are_listed_by_page(server: Local) -> None:
    answer = httpx2.get(f"{server.url}/v1/banks", params={"offset": 1, "limit": 1}, headers=KEY).json()
    assert answer == {"banks": ["shop"], "count": 3}


def test_without_a_bank_one_line_says_what_to_add(server: Local, bundle_path: Path) -> None:
    for answer in (classify(server), httpx2.get(f"{server.url}/v1/classes", headers=KEY)):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert "add ?bank=NAME; GET /v1/banks lists them" in answer.json()["detail"]
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1)) as single:
        answer = classify(single, "shop")
        assert (answer.status_code, "start it with --banks" in answer.json()["detail"]) == (422, True)


ODD = [
    "",
    ".",
    "..",
    "../banks/shop",
    "shop.safetensors",
    "/etc/passwd",
    "shop\n",
    "shop\0",
    "Shop",
    "shop%2e",
    "\u017fhop",
]
ODD += [
    "a" * 64,
    "a" * 65,
    "~",
    "*",
    "..%2fbundle%2fbank",
    "..\\shop",
    "CON",
    "shop ",
    "-",
    "$HOME",
    "{}",
    "\u202eshop",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_reach_no_file(server: Local, name: str) -> None:
    for answer in (
        classify(server, name),
        httpx2.put(f"{server.url}/v1/classes/x", params={"bank": name}, headers=KEY, timeout=60),
    ):
        assert answer.status_code in (404, 422)
        assert str(server.service.settings.banks) not in answer.text


def test_what_others_write_add_or_remove_is_in_the_next_answer(server: Local, folder: Path, spare: str) -> None:
    file = folder / f"{spare}.safetensors"
    make(folder.parent / "bundle", file, "another")
    assert "another" in known(server, spare)
    made = httpx2.put(f"{server.url}/v1/classes/third", params={"bank": spare}, headers=KEY, timeout=60)
    assert (made.status_code, "third" in known(server, spare)) == (201, True)
    assert "third" in ClassBank.load(file, base=server.service.engine.bundle.bank).names
    Path(shutil.copy(folder / "zoo.safetensors", folder / "copy")).replace(file)
    assert known(server, spare) == known(server, "zoo")
    file.unlink()
    file.symlink_to(folder / "shop.safetensors")
    assert known(server, spare) == known(server, "shop")
    file.unlink()
    for answer in (classify(server, spare), httpx2.put(f"{server.url}/v1/classes/x?bank={spare}", headers=KEY)):
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert not file.exists()


def test_a_damaged_bank_is_503_and_harms_no_other(server: Local, folder: Path, spare: str) -> None:
    file = folder / f"{spare}.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for answer in (classify(server, spare), classify(server, "zoo", spare), classify(server, spare)):
        assert (answer.status_code, answer.json()["code"]) == (503, "bank-unusable")
        assert "bank spare: " in answer.json()["detail"]
        assert str(folder) not in answer.text
    assert known(server, "zoo")
    file.write_bytes(content)
    assert "spare class" in known(server, spare)


def test_twenty_writers_on_twenty_banks_lose_nothing(server: Local, folder: Path) -> None:
    files = [folder / f"many{number}.safetensors" for number in range(20)]
    for file in files:
        shutil.copy(folder / "shop.safetensors", file)

    def write(file: Path) -> list[str]:
        confirmed = []
        for number in range(3):
            call = {"params": {"bank": file.stem}, "headers": KEY, "timeout": 120}
            if httpx2.put(f"{server.url}/v1/classes/{file.stem} {number}", **call).status_code == 201:
                confirmed.append(f"{file.stem} {number}")
        return confirmed

    with ThreadPoolExecutor(20) as threads:
        written = [*threads.map(write, files)]
    for file, confirmed in zip(files, written, strict=True):
        assert confirmed == [*ClassBank.load(file, base=server.service.engine.bundle.bank).names][-3:]
        assert set(confirmed) <= set(known(server, file.stem))
        file.unlink()


def test_requests_that_come_together_open_a_bank_once_and_the_least_used_leave(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    gate, read = threading.Event(), fleet.Fleet._read

    def held(self: fleet.Fleet, name: str, stamp: Any) -> fleet.OpenBank:
        opened.append(name)
        gate.wait(60)
        return read(self, name, stamp)

    monkeypatch.setattr(fleet.Fleet, "_read", held)
    settings = Settings(bundle=folder.parent / "bundle", banks=folder, banks_memory=1, device="cpu", threads=1)
    with local_server(settings) as server, ThreadPoolExecutor(8) as threads:
        together = [threads.submit(classify, server, "shop") for _ in range(8)]
        while not opened:
            pass
        gate.set()
        assert {one.result().status_code for one in together} == {200}
        assert opened == ["shop"]
        for name in ("shop", "zoo", "zoo", "shop"):
            assert classify(server, name).status_code == 200
        assert opened == ["shop", "zoo", "shop"]
        assert server.metric("sar_open_banks") == 1


def test_the_sixteen_banks_that_are_asked_most_have_a_label_of_their_own() -> None:
    metrics = Metrics()
    for number in range(40):
        metrics.asked(f"bank {number}")
    for _ in range(9):
        metrics.asked("asked often")
    samples = [sample for metric in metrics.by_bank.collect() for sample in metric.samples]
    assert len(samples) == 17
    assert {"other", "asked often"} <= {sample.labels["bank"] for sample in samples}
