"""``sar-bank learn``: photos without labels, from the command line, the server and a call."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.servers import local_server
from support.terminals import on_a_terminal

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.classifiers import learning
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.classify.class_set import ClassSet
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as classify
from sar_infer.server.settings import Settings

BANK = Path("mine.safetensors")
COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}


def folders(root: str, count: int, seed: int) -> str:
    """``root/CLASS/NUMBER.png``."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        for number in range(count):
            tint = np.clip(np.array(colour) + generator.normal(0, 45, 3), 0, 255)
            pixels = np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
            path = Path(root, name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def run(*arguments: object, code: int = 0, command=main) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def fitted(here: Path) -> str:
    """A bank with photos of four classes and statistics; returns a folder of other photos."""
    run("add", BANK, "--photos", folders("known", 8, seed=1))
    run("fit", BANK)
    return folders("others", 6, seed=2)


def report_of(*arguments: object) -> dict:
    return json.loads(run("learn", BANK, *arguments, "--format", "json").stdout)


def logits_by_hand(classifier: Classifier, bank: ClassBank, rows: np.ndarray) -> np.ndarray:
    """Logits from the formula, with the bank's labelled photos, its learned sums and its translation."""
    from sar_infer.classifiers.statistics import Statistics

    statistics = Statistics.from_tensors(bank.fitted)
    precision, centre = statistics.precision.astype(np.float64), statistics.centre.astype(np.float64)
    move = bank.learned.translation.astype(np.float64)
    knots = np.log2([1 + n for n, _ in statistics.offsets])
    result = np.empty((len(rows), len(bank.names)))
    for column, name in enumerate(bank.names):
        photos = bank.photos.get(name)
        count, total = (len(photos), len(photos) * photos.mean.astype(float)) if photos is not None else (0, 0.0)
        sums, number = bank.learned.by_slot.get(bank.table.slot(column), (0.0, 0.0))
        text = bank.embeddings[column].astype(np.float64)
        named = centre + statistics.slope * (text - statistics.text_centre)
        mean = (total + sums + number * move + statistics.prior * named) / (count + number + statistics.prior)
        offset = np.interp(np.log2(1 + count + number), knots, [g for _, g in statistics.offsets])
        z, d = rows + move - centre, mean - centre
        text_logit = classifier.bundle.manifest.logit_scale * (rows + move) @ text
        result[:, column] = text_logit + statistics.alpha * (z @ precision @ d - d @ precision @ d / 2) - offset
    return result


@pytest.mark.parametrize("options", [(), ("--all-known",)])
def test_what_was_learned_is_kept_and_ranks(fitted: str, bundle_path: Path, options: tuple[str, ...]) -> None:
    report = report_of("--photos", fitted, *options)
    learned = report["learned"]
    assert learned["photos"] == 24 == learned["counted"] + learned["strangers"] + learned["doubtful"]
    assert sum(item["photos"] for item in learned["classes"]) == 24
    assert report["changed"] and report["undo_to"] == 2
    bank = ClassBank.load(BANK)
    assert bank.learned is not None and bank.learned.photos == 24 and not bank.learned.stale
    assert sum(count for _, count in bank.learned.by_slot.values()) > 0
    classifier = Classifier.open(bundle_path, bank=BANK)
    rows = classifier.embed_images([*map(str, sorted(Path(fitted).rglob("*.png")))])
    classes: ClassSet = classifier.class_set()
    np.testing.assert_allclose(classifier.logits(rows, classes), logits_by_hand(classifier, bank, rows), atol=2e-3)
    again = classifier.class_set(["red", "iris"], only=True)  # given with the call, they keep what the bank learned
    columns = [bank.index["red"], bank.index["iris"]]
    np.testing.assert_allclose(classifier.logits(rows, again), classifier.logits(rows, classes)[:, columns], atol=2e-3)
    answered = run("others/red", "--bank", BANK, "--format", "jsonl", command=classify).stdout.splitlines()
    assert {p["calibration"] for line in answered for p in json.loads(line)["predictions"]} == {"none"}


def test_dry_run_writes_nothing_and_says_the_same(fitted: str) -> None:
    before = BANK.read_bytes()
    dry = report_of("--photos", fitted, "--dry-run")
    assert BANK.read_bytes() == before
    assert not dry["changed"]
    assert report_of("--photos", fitted)["learned"] == dry["learned"]


def test_it_is_replaced_taken_back_and_goes_with_its_class(fitted: str) -> None:
    run("learn", BANK, "--photos", fitted, "--all-known")
    first = ClassBank.load(BANK)
    run("learn", BANK, "--photos", f"{fitted}/red", "--all-known")
    second = ClassBank.load(BANK)
    assert (first.learned.photos, second.learned.photos) == (24, 6)
    run("rollback", BANK, "--to", 3)
    assert ClassBank.load(BANK).content_digest == first.content_digest
    run("remove", BANK, "iris")
    bank = ClassBank.load(BANK)
    assert len(bank.learned.by_slot) == len(first.learned.by_slot) - 1
    said = run("add", BANK, "violet").stderr
    assert "learn again: sar-bank learn mine.safetensors --photos PHOTOS" in said
    assert "learn again" not in run("add", BANK, "pink").stderr
    assert ClassBank.load(BANK).learned.stale
    run("rollback", BANK, "--to", 2)
    assert ClassBank.load(BANK).learned is None


def test_results_of_a_bulk_run_teach_what_their_photos_do(fitted: str) -> None:
    run(fitted, "--bank", BANK, "--out", "rows.parquet", "--embeddings", "--workers", 1, command=classify)
    from_rows = report_of("--photos", "rows.parquet", "--dry-run")["learned"]
    from_photos = report_of("--photos", fitted, "--dry-run")["learned"]
    names = ("photos", "counted", "strangers", "doubtful", "changed")
    assert [from_rows[name] for name in names] == [from_photos[name] for name in names]


def results(count: int, path: str) -> str:
    """Rows of a bulk run on the photos of ``others``, again and again."""
    if not Path("rows").exists():
        run("others", "--bank", BANK, "--out", "rows", "--embeddings", "--format", "jsonl", command=classify)
    part = next(Path("rows").glob("part-*.jsonl"))
    lines = part.read_text().splitlines()
    Path(path).write_text("".join(f"{lines[number % len(lines)]}\n" for number in range(count)))
    return path


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_leaves_the_bank_and_no_file(fitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = results(120_000, "many.jsonl")
    Path("scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(Path("scratch").absolute()))
    before, files = BANK.read_bytes(), sorted(Path().iterdir())
    progress = r"Reading photos .*[1-9]\d*/120000"
    code, shown = on_a_terminal("learn", str(BANK), "--photos", rows, until=progress)
    assert code == 130, shown
    assert "interrupted; nothing is half-written" in shown
    assert BANK.read_bytes() == before
    assert sorted(Path().iterdir()) == files
    assert [*Path("scratch").iterdir()] == []


def test_memory_does_not_grow_with_the_stream(fitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_CELLS", 2**16)

    def peak(count: int) -> tuple[int, dict[str, Any]]:
        rows = results(count, "many.jsonl")
        tracemalloc.start()
        try:
            report = report_of("--photos", rows, "--dry-run")["learned"]
            return tracemalloc.get_traced_memory()[1], report
        finally:
            tracemalloc.stop()

    peak(1_000)  # what is imported and cached
    (small, few), (large, many) = peak(20_000), peak(40_000)
    assert (few["photos"], many["photos"]) == (20_000, 40_000)
    rows = 20_000 * ClassBank.load(BANK).dim * np.dtype(np.float32).itemsize
    assert large - small < rows / 4


def test_refusals(here: Path) -> None:
    photos = folders("known", 2, seed=1)
    said = run("learn", BANK, "--photos", photos, code=2).stderr
    assert "no class statistics to learn with: fit them first" in said
    assert not BANK.exists()
    run("add", BANK, "--photos", photos)
    run("fit", BANK)
    assert "no such" in run("learn", BANK, "--photos", "missing.jsonl", code=2).stderr
    Path("broken").mkdir()
    Path("broken/x.png").write_bytes(b"none")
    assert "no photo that can be read" in run("learn", BANK, "--photos", "broken", code=2).stderr
    Path("known/red/broken.png").write_bytes(b"none")
    assert "not read: known/red/broken.png" in run("learn", BANK, "--photos", photos).stdout


def test_the_server_learns_when_asked(fitted: str, bundle_path: Path) -> None:
    files = sorted(Path(fitted).rglob("*.png"))
    images = [base64.b64encode(file.read_bytes()).decode() for file in files]
    settings = Settings(bundle=bundle_path, bank=BANK, key="k", device="cpu", threads=1)
    expected = report_of("--photos", fitted, "--dry-run")["learned"]
    with (
        local_server(settings) as local,
        httpx2.Client(base_url=local.url, headers={"Authorization": "Bearer k"}, timeout=60) as client,
    ):
        dry = client.post("/v1/learn", json={"images": images, "dry_run": True})
        assert dry.status_code == 200, dry.text
        assert ClassBank.load(BANK).learned is None
        done = client.post("/v1/learn", json={"images": images}).json()
        for name in ("photos", "counted", "strangers", "doubtful", "classes", "changed", "shift"):
            assert done[name] == dry.json()[name] == expected[name], name
        bank = ClassBank.load(BANK)
        assert bank.learned.photos == 24
        assert done["bank"] == bank.content_digest
        stale = client.post("/v1/learn", json={"images": images}, headers={"If-Match": '"other"'})
        assert stale.status_code == 412
        assert client.post("/v1/learn", json={"images": ["bm9uZQ=="]}).status_code == 415
        assert httpx2.post(f"{local.url}/v1/learn", json={"images": images}).status_code == 401


def test_the_server_learns_from_a_folder_of_the_operators(fitted: str, bundle_path: Path) -> None:
    expected = report_of("--photos", fitted, "--dry-run")["learned"]
    Path(fitted, "red", "broken.png").write_bytes(b"none")
    settings = Settings(bundle=bundle_path, bank=BANK, photos=Path().absolute(), key="k", device="cpu", threads=1)
    with (
        local_server(settings) as local,
        httpx2.Client(base_url=local.url, headers={"Authorization": "Bearer k"}, timeout=60) as client,
    ):
        dry = client.post("/v1/learn", json={"folder": fitted, "dry_run": True})
        assert dry.status_code == 200, dry.text
        assert ClassBank.load(BANK).learned is None
        answer = client.post("/v1/learn", json={"folder": fitted}).json()
        for call, detail in (
            ({}, "expected either images or embeddings or folder"),
            ({"folder": fitted, "images": ["bm9uZQ=="]}, "expected either images or embeddings or folder"),
            ({"folder": "../x"}, "below --photos"),
            ({"embeddings": ["AAA="]}, "little-endian float32"),
        ):
            refused = client.post("/v1/learn", json=call)
            assert (refused.status_code, detail in refused.json()["detail"]) == (422, True), refused.text
    for name in ("photos", "counted", "strangers", "doubtful", "classes", "changed", "shift"):
        assert answer[name] == dry.json()[name] == expected[name], name
    assert (answer["unreadable"], [error["key"] for error in answer["errors"]]) == (1, ["others/red/broken.png"])
    assert {note["key"] for note in answer["look_first"]} <= {path.as_posix() for path in Path(fitted).rglob("*.png")}
    bank = ClassBank.load(BANK)
    assert (bank.learned.photos, bank.content_digest) == (24, answer["bank"])


def test_an_offset_shifts_a_fitted_bank(fitted: str, bundle_path: Path) -> None:
    def logits(*options: object) -> dict[str, float]:
        done = run(f"{fitted}/red/0.png", "--bank", BANK, "--top-k", 9, *options, "--format", "json", command=classify)
        return {item["label"]: item["logit"] for item in json.loads(done.stdout)[0]["predictions"]}

    before, after = logits(), logits("--offset", 2)
    for name, logit in before.items():
        assert after[name] == pytest.approx(logit - 2 * (name in COLOURS), abs=1e-3)
    assert "fit a bank" in run("others", "--offset", 2, code=2, command=classify).stderr
    photo = Path(fitted, "red", "0.png").read_bytes()
    settings = Settings(bundle=bundle_path, bank=BANK, offset=2.0, device="cpu", threads=1)
    with local_server(settings) as local:
        answer = httpx2.post(f"{local.url}/v1/classify?top_k=9", content=photo, headers={"Content-Type": "image/png"})
        served = {item["label"]: item["logit"] for item in answer.json()["results"][0]["predictions"]}
    assert served == pytest.approx(after, abs=1e-3)


def test_a_call_learns_too(fitted: str, bundle_path: Path) -> None:
    classifier = Classifier.open(bundle_path, bank=BANK)
    files = [*map(str, sorted(Path(fitted).rglob("*.png")))]
    told: list[int] = []
    with FeatureSpool.of(classifier.bank.dim, [(files, classifier.embed_images(files))]) as spool:
        change, report = classifier.learn(spool, all_known=True, told=told.append)
        assert [*spool.keys()] == files
    assert report.photos == change.photos == 24
    assert sum(told) >= 24


def test_photos_that_teach_nothing_change_nothing(fitted: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for number, noise in enumerate(pixels):
        Path("noise").mkdir(exist_ok=True)
        Image.fromarray(noise).save(f"noise/{number}.png")
    before = BANK.read_bytes()
    result = run("learn", BANK, "--photos", "noise")
    assert "nothing to change" in result.stdout
    assert "these photos teach nothing, and the bank stays as it is" in result.stdout
    assert BANK.read_bytes() == before
    run("learn", BANK, "--photos", fitted)
    taught = BANK.read_bytes()
    assert not report_of("--photos", "noise")["changed"]
    assert BANK.read_bytes() == taught != before
