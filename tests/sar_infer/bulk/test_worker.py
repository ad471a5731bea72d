from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from support.many import small_png, write_images
from support.pictures import huge_png

from sar_infer import Classifier
from sar_infer.bank import calibrate, remove, set_class
from sar_infer.bank.learned import BankCalibration
from sar_infer.bulk.containers import MOST_BYTES, Flaw, Item
from sar_infer.bulk.rows import names
from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.bundle.bundle import open_bundle
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.results import DecisionOptions

if sys.platform != "win32":
    import resource

BROKEN = Item("gone", Flaw("source", "it is gone"))


class AsTheyAre:
    """A form that leaves rows as they are."""

    suffix = ".rows"

    def pack(self, rows):
        return rows


def answer(bundle_path: Path, *items: Item, **settings) -> list[dict]:
    answers = Answerer(WorkerOptions(str(bundle_path), **settings)).answer(items, AsTheyAre())
    assert answers.inputs == len(items)
    assert answers.rejected == sum(row["error"] is not None for row in answers.packed)
    return answers.packed


def test_rows_are_what_the_classifier_says(bundle_path: Path, classifier: Classifier, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 5)
    (tmp_path / "bad.png").write_bytes(b"no")
    items = [Item(str(path), str(path)) for path in (*paths, tmp_path / "bad.png")]
    items[2] = Item("from memory", small_png(2))
    class_phrases = {"owl": ("owl",), "zebra": ("zebra", "striped horse")}
    rows = answer(bundle_path, *items, classes=class_phrases, top_k=3, embedding="float32")
    expected = classifier.classify(map(str, [*paths, tmp_path / "bad.png"]), class_phrases, top_k=3)
    for row, result in zip(rows[:5], expected[:5], strict=True):
        assert [*zip(row["labels"], row["scores"], strict=True)] == [
            (p.label, pytest.approx(p.score, rel=1e-5)) for p in result.predictions
        ]
        assert (row["label"], row["source"]) == (result.predictions[0].label, result.predictions[0].source)
    assert np.allclose([row["embedding"] for row in rows[:5]], classifier.embed_images(map(str, paths)), atol=1e-6)
    assert (rows[2]["key"], rows[5]["error_kind"], rows[5]["label"]) == ("from memory", "format", None)


def test_flaws_keep_their_place(bundle_path: Path) -> None:
    assert answer(bundle_path) == []
    assert [row["error"] for row in answer(bundle_path, BROKEN, BROKEN)] == ["it is gone"] * 2
    rows = answer(bundle_path, BROKEN, Item("a", small_png(1)), BROKEN, Item("big", huge_png(20_000, 20_000)))
    assert [row["error_kind"] for row in rows] == ["source", None, "source", "size"]


def test_missing_and_large_files(bundle_path: Path, tmp_path: Path) -> None:
    with (tmp_path / "000.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    rows = answer(bundle_path, *(Item(name, str(tmp_path / name)) for name in ("000.png", "gone.png", ".")))
    assert [row["error"] for row in rows] == [f"too large: more than {MOST_BYTES} bytes", "no such file", "not a file"]


def test_storage(bundle_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/some/a.png", small_png(1))
    memory.pipe_file("/some/b.png", bytes(MOST_BYTES + 1))
    urls = ("memory://some/a.png", "memory://some/b.png", "memory://some/c.png", "http://x/y.png", "gs://x/y.png")
    rows = answer(bundle_path, *(Item(url, url) for url in urls))
    assert [row["error_kind"] for row in rows] == [None, "size", "unreadable", "unreadable", "unreadable"]
    assert rows[3]["error"].startswith("web servers are not read")
    assert rows[4]["error"].startswith("needs a package: pip install '.[bulk]' gcsfs")
    memory.rm_file("/some/b.png")


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit there")
def test_an_image_for_which_there_is_no_memory(bundle_path: Path) -> None:
    """In a new process, since one that ran other tests may hold enough that they have freed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_short_of_memory, bundle_path).result(60) == [None, "size", None]


def _short_of_memory(bundle_path: Path) -> list[str | None]:
    answerer = Answerer(WorkerOptions(str(bundle_path)))
    answerer.answer([Item("warm", small_png(1))], AsTheyAre())
    items = [Item("small", small_png(1)), Item("large", huge_png(7000, 7000)), Item("another", small_png(3))]
    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (held + 2**25, resource.RLIM_INFINITY))
    return [row["error_kind"] for row in answerer.answer(items, AsTheyAre()).packed]


def test_further_columns(bundle_path: Path) -> None:
    (row,) = answer(
        bundle_path,
        Item("a", small_png(1)),
        decision=DecisionOptions(True, 0.0, explain=True, guesses=True),
        embedding="float16",
    )
    assert row["reason"] == f"probability {row['unknown']:.3f} is above 0.000"
    assert row["runner_up"] == row["labels"][1]
    assert row["margin"] == pytest.approx(row["scores"][0] - row["scores"][1])
    assert row["embedding"].dtype == np.float16
    columns = Answerer(
        WorkerOptions(str(bundle_path), decision=DecisionOptions(explain=True), embedding="float16")
    ).columns
    assert list(row) == names(columns)


def test_settings_tell_apart_all_that_answers_depend_on(bundle_path: Path, tmp_path: Path) -> None:
    """Background, thresholds and calibration of a bank too, which its digest does not cover."""
    several = [
        WorkerOptions(str(bundle_path)),
        WorkerOptions(str(bundle_path), classes={"owl": ("owl",)}),
        WorkerOptions(str(bundle_path), classes={"owl": ("an owl",)}),
        WorkerOptions(str(bundle_path), classes={"owl": ("owl",)}, only=True),
        WorkerOptions(str(bundle_path), top_k=1),
        WorkerOptions(str(bundle_path), decision=DecisionOptions("score", 0.5)),
        WorkerOptions(str(bundle_path), decision=DecisionOptions(explain=True)),
        WorkerOptions(str(bundle_path), embedding="float16"),
    ]
    settings = [Answerer(options).settings() for options in several]
    for same in ({"threads": 2}, {"image_timeout": 1}):
        assert Answerer(WorkerOptions(str(bundle_path), **same)).settings() == settings[0]
    bank, file = open_bundle(bundle_path).bank, tmp_path / "b.safetensors"
    calibration = BankCalibration(bank.content_digest, "m", (), 2.0, 0.5, (0.3, 0.2, 0.1), {"photos": 60})
    for changed in (
        set_class(bank, "red", background=True),
        set_class(bank, "red", threshold=0.5),
        calibrate(bank, calibration),
    ):
        assert changed.content_digest == bank.content_digest
        changed.save(file)
        settings.append(Answerer(WorkerOptions(str(bundle_path), bank=str(file))).settings())
    bank.save(file)
    assert Answerer(WorkerOptions(str(bundle_path), bank=str(file))).settings() == settings[0]
    assert all(settings.count(one) == 1 for one in settings)


def test_refusals(bundle_path: Path) -> None:
    with pytest.raises(ClassNameError):
        Answerer(WorkerOptions(str(bundle_path), classes={"x " * 50: ("x " * 50,)}))
    with pytest.raises(InputError, match="coverage"):
        Answerer(WorkerOptions(str(bundle_path), decision=DecisionOptions(coverage=0.9)))


def test_a_worker_refuses_a_bank_that_is_not_the_one_the_run_began_with(bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    bank = Classifier.open(bundle_path).bank
    bank.save(file)
    pinned = Answerer(WorkerOptions(bundle=str(bundle_path), bank=str(file))).options
    assert Answerer(pinned).options == pinned
    for changed in (remove(bank, [bank.names[0]]), set_class(bank, bank.names[0], threshold=0.5)):
        changed.save(file)
        with pytest.raises(BankError, match="was changed since this run began"):
            Answerer(pinned)
