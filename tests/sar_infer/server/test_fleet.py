"""A folder of banks behind one encoder."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
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
from support.servers import Local, Server, local_server, serving, wait_for

from sar_infer import ClassBank, Classifier, Client
from sar_infer.cli.bank import main as sar_bank
from sar_infer.cli.classify import main as sar_classify
from sar_infer.server.metrics import Metrics
from sar_infer.server.model import banks
from sar_infer.server.routes import classes as routes
from sar_infer.server.settings import Settings

CLOTHES = Path(__file__).parents[3] / "examples" / "clothes"
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


def test_several_things_by_each_of_several_banks(tmp_path: Path) -> None:
    folder, image = tmp_path / "banks", CLOTHES / "test" / "hat" / "00.jpg"
    folder.mkdir()
    expected = dict[str, Any]()
    for name, classes in (("head", ("hat", "dress")), ("legs", ("trousers", "jacket"))):
        photos = {one: sorted((CLOTHES / "train" / one).iterdir())[:6] for one in classes}
        made = Classifier.from_examples(photos, device="cpu")
        made.save(folder / f"{name}.safetensors")
        expected[name] = [[*one[:2], list(one.box)] for one in made.classify(image, several=True).labels]
    assert [bool(labels) for labels in expected.values()] == [True, False]
    names = str(folder / "names.safetensors")
    for arguments in (["create", names, "--classes", "hat,mug"], ["set", names, "--unknown-threshold", "0.3"]):
        assert CliRunner().invoke(sar_bank, arguments).exit_code == 0

    def check(banks: dict[str, Any]) -> None:
        for name, labels in expected.items():
            assert [one["label"] for one in banks[name]["labels"]] == [label for label, *_ in labels]
            assert [one["score"] for one in banks[name]["labels"]] == pytest.approx([score for _, score, _ in labels])
            assert [one["box"] for one in banks[name]["labels"]] == [box for *_, box in labels]

    with local_server(Settings(bank=Path(names), banks=folder, device="cpu", threads=1)) as local:

        def ask(*banks: str) -> httpx2.Response:
            query, headers = {"bank": banks, "several": True}, {"Content-Type": "image/jpeg"}
            call = image.read_bytes()
            return httpx2.post(f"{local.url}/v1/classify", content=call, params=query, headers=headers, timeout=60)

        check({name: answer["results"][0] for name, answer in ask("head", "legs").json()["banks"].items()})
        refusal = ask("legs", "names").json()["detail"]
        assert refusal.startswith("bank names: several: needs a fitted class model")
        model = httpx2.get(f"{local.url}/v1/model", timeout=60).json()
        assert (model["unknown"], model["several"]) == (True, False)
    files = [option for name in (*expected, "names") for option in ("--bank", str(folder / f"{name}.safetensors"))]
    done = CliRunner().invoke(sar_classify, [str(image), "--several", "--format", "jsonl", *files[:4]])
    check(json.loads(done.stdout)["banks"])
    assert refusal in CliRunner().invoke(sar_classify, [str(image), "--several", *files]).output


def test_names_of_the_call_and_other_protocols_have_the_bank_too(server: Local) -> None:
    labels = {p["label"] for p in classify(server, "zoo", classes="gnu").json()["results"][0]["predictions"]}
    assert {"gnu", "okapi"} <= labels
    tensor = {"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(jpeg()).decode()]}
    call = {"inputs": [tensor], "parameters": {"top_k": 50}}
    answer = httpx2.post(f"{server.url}/v2/models/zoo/infer", json=call, headers=KEY, timeout=60).json()
    (found,) = [output["data"] for output in answer["outputs"] if output["name"] == "LABELS"]
    assert (answer["model_name"], set(found)) == ("zoo", set(known(server, "zoo")))


def test_a_client_of_a_bank_asks_for_it_in_every_call(server: Local, spare: str) -> None:
    with Client(server.url, "k", bank=spare) as client:
        assert "spare class" in [p.label for p in client.classify(jpeg(), top_k=50).predictions]
        client.add("newer", photos=[jpeg()])
        assert "newer" in known(server, spare) and "newer" not in known(server, "zoo")
        client.remove("newer")
    assert "newer" not in known(server, spare)


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


PATTERNS = [
    "./N", "../N", "../../fleet/N", "..%2fN", r"..\N", "%2e%2e/N", "/N", "//N", "N/", "N/.", "N/../N", "~/N",
    "N%00", "N;ls", "N|cat", "`N`", "$(N)", "'N'", '"N"', "<N>", "N#", "N&a", "N=", "N,zoo", "N zoo", "%N", "N%",
    "file://N", "http://a/N", "N:$DATA", "N::", r"\\N\c$", r"c:\N", "N.SAFETENSORS", "N.safetensors", "N.safetensors/",
    "./banks/../N", "N?bank=zoo", "(N)", "[N]", "{N}", "@N", "!N", "+N", " N ", "N\n", "\nN", "N\0",
    "N\0.safetensors", "\tN", "\r\nN", "\x1b[2JN",
    "\ufeffN", "N\u200b", "\u202eN", "N\u00a0",
]  # fmt: skip
ODD = [pattern.replace("N", name) for name in ("outside", "shop") for pattern in PATTERNS]
ODD += ["", ".", "..", "outside", "Shop", "\u017fhop", "a" * 64, "a" * 65, "~", "~root", "*", "?", "CON", "-", "$HOME"]


def test_a_hundred_odd_names_reach_no_file(server: Local, folder: Path) -> None:
    shutil.copy(folder / "shop.safetensors", folder.parent / "outside.safetensors")
    before = {file: file.stat().st_mtime_ns for file in folder.parent.rglob("*")}
    assert len({*ODD}) > 100
    with httpx2.Client(base_url=server.url, headers=IMAGE, timeout=60) as client:
        for name, call in itertools.product(ODD, (("POST", "/v1/classify"), ("PUT", "/v1/classes/x"))):
            answer = client.request(*call, params={"bank": name}, content=jpeg())
            assert answer.status_code in (404, 422), (name, answer.text)
            assert str(folder.parent) not in answer.text
    assert {file: file.stat().st_mtime_ns for file in folder.parent.rglob("*")} == before


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


def test_a_kill_loses_no_confirmed_class_and_damages_no_bank(folder: Path, tmp_path: Path) -> None:
    files = [Path(shutil.copy(folder / "shop.safetensors", tmp_path / f"{n}.safetensors")) for n in range(20)]
    confirmed: dict[Path, list[str]] = {file: [] for file in files}
    arguments = ("--bundle", str(folder.parent / "bundle"), "--banks", str(tmp_path), "--workers", "0")

    def write(server: Server, file: Path) -> None:
        with httpx2.Client(headers=KEY, timeout=60) as client, contextlib.suppress(httpx2.TransportError):
            for number in itertools.count():
                answer = client.put(f"{server.url}/v1/classes/class {number}?bank={file.stem}")
                confirmed[file] += [f"class {number}"] * (answer.status_code == 201)

    with serving(*arguments, key="k") as server, ThreadPoolExecutor(20) as threads:
        for file in files:
            threads.submit(write, server, file)
        wait_for(lambda: all(len(names) > 2 for names in confirmed.values()))
        server.process.kill()
        server.process.wait()
    for file, names in confirmed.items():
        stored = Classifier.open(folder.parent / "bundle", "cpu", bank=file).bank.names
        assert {*names} <= {*stored} and len(stored) - len(NAMES["shop"]) - 4 - len(names) in (0, 1)


def test_a_disk_that_hangs_holds_up_its_own_bank_alone(
    server: Local, folder: Path, spare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, real = threading.Event(), banks.stamp_of
    shutil.copy(folder / "zoo.safetensors", folder / "slow.safetensors")

    def stamp(path: Path) -> Any:
        if path.stem in (spare, "slow"):
            hangs.wait(60)
        return real(path)

    monkeypatch.setattr(banks, "stamp_of", stamp)
    monkeypatch.setattr(banks, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(banks, "_OPEN_SECONDS", 0.2)
    try:
        assert "spare class" in known(server, spare)  # as of the last look
        answer = classify(server, "slow")
        assert (answer.status_code, answer.json()["code"]) == (503, "bank-unusable")
        assert "bank slow: its disk does not answer" in answer.json()["detail"]
        assert "okapi" in known(server, "zoo")
    finally:
        hangs.set()
    monkeypatch.undo()
    assert known(server, "slow") == known(server, "zoo")
    (folder / "slow.safetensors").unlink()


def test_so_many_changes_of_a_bank_wait_and_others_do_not(
    server: Local, spare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, remove = threading.Event(), routes.remove
    monkeypatch.setattr(banks, "_MOST_CHANGES", 2)
    monkeypatch.setattr(routes, "remove", lambda *args, **more: go.wait(30) and remove(*args, **more))

    def change(method: str, name: str, bank: str) -> int:
        url = f"{server.url}/v1/classes/{name}"
        return httpx2.request(method, url, params={"bank": bank}, headers=KEY, timeout=60).status_code

    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(change, "DELETE", "spare class", spare) for _ in range(6)]
        wait_for(lambda: sum(one.done() for one in waiting) == 4)
        assert change("PUT", "lion", "zoo") == 200
        go.set()
        assert sorted(one.result() for one in waiting) == [204, 404, 429, 429, 429, 429]


def test_a_reload_of_another_encoder_while_a_bank_changes_mixes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, changing = write_bundle(tmp_path / "bundle"), tmp_path / "banks"
    changing.mkdir()
    make(bundle, changing / "mine.safetensors", "mug")
    begun, gate, real = threading.Event(), threading.Event(), banks.Banks._changed

    def held(*arguments: Any) -> ClassBank:
        begun.set()
        gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(banks.Banks, "_changed", held)
    settings = Settings(bundle=bundle, banks=changing, key="k", device="cpu", threads=1)
    with local_server(settings) as server, ThreadPoolExecutor(1) as threads:
        url = f"{server.url}/v1/classes/late?bank=mine"
        change = threads.submit(httpx2.put, url, headers=KEY, timeout=60)
        assert begun.wait(60)
        make(bundle, changing / "mine.safetensors", "cup")  # so that the name is embedded again, under the lock
        base = ClassBank.load(bundle / "bank.safetensors")
        write_bundle(tmp_path / "new", encoder_digest="f" * 64)
        shutil.rmtree(bundle)
        (tmp_path / "new").rename(bundle)
        assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
        gate.set()
        answer = change.result()
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        answer = classify(server, "mine")
        assert (answer.status_code, "belongs to another encoder" in answer.json()["detail"]) == (503, True)
    names = ClassBank.load(changing / "mine.safetensors", base=base.shared(bundle / "bank.safetensors")).names
    assert names[-2:] == ("mug", "cup")


def test_requests_that_come_together_open_a_bank_once_and_the_least_used_leave(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    gate, read = threading.Event(), banks.Banks._read

    def held(self: banks.Banks, name: str | None, stamp: Any) -> banks.OpenBank:
        if name is not None:
            opened.append(name)
            gate.wait(60)
        return read(self, name, stamp)

    monkeypatch.setattr(banks.Banks, "_read", held)
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
