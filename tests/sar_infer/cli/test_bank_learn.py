"""``sar-bank learn``: photos without labels, from the command line, the server and a call."""

from __future__ import annotations

import base64
import os
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from support.bank_commands import BANK, Command, content, paint_folders, start, working_in
from support.servers import local_server, wait_for
from support.terminals import on_a_terminal

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.class_model import adapt
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify
from sar_infer.server.settings import Limits, Settings

run, classify = Command(main), Command(sar_classify)
FIGURES = ("photos", "unknown", "changed")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """A folder with a bank that has photos of four classes and statistics, and other photos of them."""
    with working_in(tmp_path_factory.mktemp("prepared"), bundle_path) as folder:
        run("add", BANK, "--photos", paint_folders("labelled", 8, seed=1))
        run("fit", BANK)
        paint_folders("others", 6, seed=2)
    return folder


@pytest.fixture
def fitted(prepared: Path, here: Path) -> str:
    """Copy the bank and the other photos here; return their folder."""
    shutil.copytree(prepared, here, dirs_exist_ok=True)
    return "others"


@contextmanager
def served(bundle: Path, **settings: object) -> Iterator[httpx2.Client]:
    """Serve the bank with a key that the client has."""
    with (
        local_server(Settings(bundle=bundle, bank=BANK, key="k", device="cpu", threads=1, **settings)) as local,
        httpx2.Client(base_url=local.url, headers={"Authorization": "Bearer k"}, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("options", [(), ("--all-known",)])
def test_what_was_learned_stays_and_ranks(fitted: str, bundle_path: Path, options: tuple[str, ...]) -> None:
    before = content()
    dry = run.report("learn", BANK, "--photos", fitted, *options, "--dry-run")
    assert (dry["changed"], content()) == (False, before)
    done = run.report("learn", BANK, "--photos", fitted, *options)
    learned = done["learned"]
    assert learned == dry["learned"]
    assert learned["photos"] == 24 == learned["unknown"] + sum(item["photos"] for item in learned["classes"])
    assert done["changed"] and done["undo_to"] == 2
    bank = ClassBank.load(BANK)
    assert bank.learned is not None and bank.learned.photos == 24 and not bank.learned.stale
    assert sum(count for _, count in bank.learned.by_key.values()) > 0
    classifier = Classifier.open(bundle_path, bank=BANK)
    rows = classifier.embed_images([*map(str, sorted(Path(fitted).rglob("*.png")))])
    classes = classifier.class_set()
    again = classifier.class_set(["red", "iris"], only=True)  # given with the call, they have what the bank learned
    columns = [bank.lookup.find("red"), bank.lookup.find("iris")]
    np.testing.assert_allclose(classifier.logits(rows, again), classifier.logits(rows, classes)[:, columns], atol=2e-3)


def test_it_is_replaced_and_out_of_date_once_there_are_other_classes(fitted: str) -> None:
    for photos, count in ((fitted, 24), (f"{fitted}/red", 6)):
        run("learn", BANK, "--photos", photos, "--all-known")
        assert ClassBank.load(BANK).learned.photos == count
    warning = "adapt again: sar-bank learn mine.safetensors --photos PHOTOS"
    assert warning in run("add", BANK, "violet").stderr
    assert warning not in run("add", BANK, "pink").stderr


def results(count: int, path: str) -> str:
    """Write rows of a bulk run on the photos of ``others``, again and again; return the path."""
    if not Path("rows").exists():
        classify("others", "--bank", BANK, "--out", "rows", "--embeddings", "--workers", 1)
    table = pyarrow.parquet.read_table("rows/part-000000.parquet")
    pyarrow.parquet.write_table(table.take(np.arange(count) % len(table)), path, row_group_size=1024)
    return path


def test_results_of_a_bulk_run_teach_what_their_photos_do(fitted: str) -> None:
    from_rows, from_photos = (
        run.report("learn", BANK, "--photos", photos, "--dry-run")["learned"]
        for photos in (results(24, "rows.parquet"), fitted)
    )
    assert [from_rows[name] for name in FIGURES] == [from_photos[name] for name in FIGURES]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_leaves_the_bank_and_no_file(fitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = results(120_000, "many.parquet")
    Path("scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(Path("scratch").absolute()))
    before, files = content(), sorted(Path().iterdir())
    progress = r"Reading photos .*[1-9]\d*/120000"
    code, shown = on_a_terminal("learn", str(BANK), "--photos", rows, until=progress)
    assert code == 130, shown
    assert "interrupted; nothing is half-written" in shown
    assert (content(), sorted(Path().iterdir()), os.listdir("scratch")) == (before, files, [])


def test_memory_does_not_grow_with_the_stream(fitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "_CELLS", 2**13)

    def peak(count: int) -> int:
        rows = results(count, "many.parquet")
        tracemalloc.start()
        try:
            assert run.report("learn", BANK, "--photos", rows, "--dry-run")["learned"]["photos"] == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)  # what is imported and cached
    rows = 12_000 * ClassBank.load(BANK).dim * np.dtype(np.float32).itemsize
    assert peak(24_000) - peak(12_000) < rows / 4


def test_refusals(here: Path) -> None:
    photos = paint_folders("labelled", 2, seed=1)
    start()
    assert "no class model to learn with: fit one first" in run.refused("learn", BANK, "--photos", photos)
    run("add", BANK, "--photos", photos)
    run("fit", BANK)
    assert "no such" in run.refused("learn", BANK, "--photos", "missing.parquet")
    Path("broken").mkdir()
    Path("broken/x.png").write_bytes(b"none")
    assert "no photo that can be read" in run.refused("learn", BANK, "--photos", "broken")
    Path("labelled/red/broken.png").write_bytes(b"none")
    assert "not read: labelled/red/broken.png" in run("learn", BANK, "--photos", photos).stdout


def test_the_server_learns_from_images_as_the_command_does(fitted: str, bundle_path: Path) -> None:
    files = sorted(Path(fitted).rglob("*.png"))
    images = [base64.b64encode(file.read_bytes()).decode() for file in files]
    expected = run.report("learn", BANK, "--photos", fitted, "--dry-run")["learned"]
    before = content()
    with served(bundle_path) as client:
        dry = client.post("/v1/learn", json={"images": images, "dry_run": True})
        assert dry.status_code == 200, dry.text
        assert content() == before
        done = client.post("/v1/learn", json={"images": images}).json()
        for name in (*FIGURES, "classes", "shift"):
            assert done[name] == dry.json()[name] == expected[name], name
        assert {note["key"] for note in done["look_first"]} <= {f"images[{n}]" for n in range(len(files))}
        bank = ClassBank.load(BANK)
        assert (bank.learned.photos, bank.content_digest) == (24, done["bank"])
        assert client.post("/v1/bank/rollback", json={"to": 2}).status_code == 200
        before = content()
        either = "expected either images or embeddings"
        for call, headers, status, detail in (
            ({"images": images}, {"If-Match": '"other"'}, 412, ""),
            ({"images": images}, {"Authorization": ""}, 401, ""),
            ({"images": ["bm9uZQ=="]}, {}, 415, ""),
            ({}, {}, 422, either),
            ({"folder": fitted}, {}, 422, "unknown field"),
            ({"embeddings": ["AAA="]}, {}, 422, "little-endian float32"),
        ):
            problem = client.post("/v1/learn", json=call, headers=headers)
            assert (problem.status_code, detail in problem.text) == (status, True), problem.text
    assert content() == before


def test_learning_outlives_its_client_and_the_deadline(
    fitted: str, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, learn = threading.Event(), threading.Event(), Classifier.adapt

    def slowly(*arguments: Any, **options: Any) -> Any:
        begun.set()
        gate.wait(60)
        return learn(*arguments, **options)

    images = [base64.b64encode(file.read_bytes()).decode() for file in sorted(Path(fitted).rglob("*.png"))]
    monkeypatch.setattr(Classifier, "adapt", slowly)
    monkeypatch.setattr("tempfile.TemporaryFile", None)  # so few photos need no file
    with served(bundle_path, limits=Limits(seconds=1)) as client:
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/v1/learn", json={"images": images}, timeout=3)
        assert begun.is_set()
        steps = client.get("/v1/bank/history").json()["count"]
        gate.set()
        wait_for(lambda: client.get("/v1/bank/history").json()["count"] == steps + 1)
        assert client.get("/v1/bank/history").json()["steps"][0]["action"] == "learn"
    assert ClassBank.load(BANK).learned.photos == len(images)


def test_photos_that_teach_nothing_change_nothing(fitted: str) -> None:
    Path("noise").mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for number, noise in enumerate(pixels):
        Image.fromarray(noise).save(f"noise/{number}.png")
    before = content()
    result = run("learn", BANK, "--photos", "noise")
    assert "nothing to change" in result.stdout
    assert "these photos change nothing" in result.stdout
    assert content() == before
    run("learn", BANK, "--photos", fitted)
    taught = content()
    assert not run.report("learn", BANK, "--photos", "noise")["changed"]
    assert content() == taught != before
