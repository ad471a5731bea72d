"""The content of a bank, its file as ``docs/bundle.md`` describes it, and files that are damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save
from support.banks import content, learning, photo_set, unit_rows
from support.examples import NIGHTLY

from sar_infer.bank import ClassBank, ClassInfo, add, edits, rollback
from sar_infer.bank.learned import BankCalibration
from sar_infer.errors import BankError, BaseMissingError, SchemaError

NAMES = ("cat", "日本 spitz", "é")
ROWS = unit_rows(NAMES)
INFO = {
    "cat": ClassInfo(("a cat", "a tabby"), ("Felis catus",), True, 0.25, "2026-01-01T00:00:00Z"),
    "é": ClassInfo(threshold=1.0),
}
CALIBRATION = BankCalibration(
    "d", "m", "text", ("cat",), (), 1.5, {"score": 0.5, "energy": -1.0}, {"0.9": 0.1}, {"fitted_on": 60}
)


def bank(names=NAMES, **more: Any) -> ClassBank:
    return ClassBank(tuple(names), unit_rows(names), "a" * 64, {"list": "mine"}, **more)


def changed_in_every_way() -> ClassBank:
    """Return a bank with a log of every kind of change."""
    photos = {"owl": photo_set("p", "q")}
    result = add(bank(info=INFO), ["owl", "emu"], unit_rows(["owl", "emu"]), {"emu": ClassInfo(threshold=0.5)}, photos)
    result = edits.amend(result, {"owl": ClassInfo(aliases=("hooter",), background=True)})
    result = edits.remove_photos(edits.rename(result, "é", "e"), "owl", photo_set("q").digest_set)
    result = edits.learn(edits.fit(result, {"slope": np.array(0.5)}), learning({"owl": "o"}))
    result = edits.calibrate(result, CALIBRATION)
    return edits.remove(rollback(edits.remove(result, ["emu"]), 7), ["emu"])


def parts(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors of a file, as the library reads them."""
    with safe_open(path, "np") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def rewritten(path: Path, metadata: dict[str, Any] | None = None, **tensors: np.ndarray | None) -> Path:
    """Replace metadata and tensors of a file; None removes one."""
    old_metadata, old_tensors = parts(path)
    new = {key: value for key, value in {**old_tensors, **tensors}.items() if value is not None}
    texts = {key: value for key, value in {**old_metadata, **(metadata or {})}.items() if value is not None}
    path.write_bytes(save(new, texts))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bank().save(tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


# ------------------------------------------------------------------------------------------------------------- content
@pytest.mark.parametrize(
    ("names", "rows", "more", "message"),
    [
        (("a", "a"), unit_rows("aa"), {}, "'a'"),
        (("a", " "), unit_rows("ab"), {}, "class 1"),
        (("a", "\ud800"), unit_rows("ab"), {}, "not text"),
        (("a", "b"), unit_rows("abc"), {}, r"\(2, D\)"),
        (("a",), unit_rows("a").astype(np.float64), {}, "float64"),
        (("a", "b"), unit_rows("ab") * np.float32([[1], [1.01]]), {}, "1.01"),
        (("a", "b"), unit_rows("ab") * np.float32([[1], [np.nan]]), {}, "nan"),
        (("a",), unit_rows("a"), {"info": {"owl": ClassInfo(threshold=1)}}, "owl"),
        (("a",), unit_rows("a"), {"photos": {"owl": photo_set("p")}}, "owl"),
        (("a", "b"), unit_rows("ab"), {"info": {"a": ClassInfo(aliases=("B",))}}, "alias 'B'"),
    ],
)
def test_unsound_content(names, rows, more, message: str) -> None:
    with pytest.raises(BankError, match=message):
        ClassBank(names, rows, "a" * 64, **more)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phrases": ("a", " ")}, "empty phrase"),
        ({"phrases": ("a\nb",)}, "control character"),
        ({"aliases": ("",)}, "empty alias"),
        ({"aliases": ("\udcff",)}, "UTF-8"),
        *(({"threshold": value}, "threshold") for value in (-0.1, 1.1, float("nan"))),
    ],
)
def test_unsound_info(changes: dict[str, Any], message: str) -> None:
    assert (ClassInfo(threshold=0).threshold, ClassInfo(threshold=1).threshold) == (0, 1)
    with pytest.raises(BankError, match=message):
        ClassInfo(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"thresholds": {"score": 0.5}},
        {"thresholds": {"score": 0.5, "energy": float("inf")}},
        {"conformal": {"0.9": 2.0}},
        {"calibrated": ("red", "red")},
    ],
)
def test_unsound_calibrations(changes: dict[str, Any]) -> None:
    with pytest.raises(BankError, match="calibration"):
        dataclasses.replace(CALIBRATION, **changes)


def test_rows_are_read_only() -> None:
    rows = np.array(ROWS)
    with pytest.raises(ValueError, match="read-only"):
        ClassBank(NAMES, rows, "a" * 64).embeddings[0, 0] = 1
    rows[0, 0] = 1  # the caller's own array stays open


# ---------------------------------------------------------------------------------------------------------------- files
def test_a_plain_bank_is_written_as_documented(path: Path) -> None:
    metadata, tensors = parts(path)
    every_kind = {"format", "schema_version", "min_reader", "encoder_digest", "content_digest"}
    assert set(metadata) == every_kind | {"provenance", "info", "history", "record_digest"}
    assert [metadata[key] for key in ("format", "schema_version", "min_reader")] == ["sar-bank", "2", "1"]
    assert json.loads(metadata["provenance"]) == {"list": "mine"}
    assert bytes(tensors["names"]).decode() == "".join(NAMES)
    assert tensors["offsets"].tolist() == [0, 3, 15, 17]
    assert (tensors["embeddings"].dtype, tensors["offsets"].dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(tensors["embeddings"], ROWS)


def test_a_bank_with_a_history_is_written_as_documented(path: Path) -> None:
    changed = edits.remove(edits.rename(bank(info=INFO), "cat", "Tabby"), ["é"], by="a test")
    changed.save(path)
    metadata, _ = parts(path)
    assert (metadata["schema_version"], metadata["content_digest"]) == ("4", changed.content_digest)
    assert json.loads(metadata["info"])[0] == {
        "rows": [[0, 1]],
        "phrases": ["a cat", "a tabby"],
        "aliases": ["Felis catus"],
        "background": True,
        "threshold": 0.25,
        "added": "2026-01-01T00:00:00Z",
    }
    first, second = json.loads(metadata["records"])
    assert first["changes"] == [{"kind": "rename", "old": "cat", "new": "Tabby"}]
    assert second == {
        "n": 2,
        "at": changed.history[1].at,
        "action": "remove",
        "summary": "removed 'é'",
        "by": "a test",
        "changes": [{"kind": "remove", "names": ["é"]}],
    }


def test_a_reader_of_an_older_version_reads_what_it_understands(path: Path) -> None:
    photographed = add(bank(), [], unit_rows([]), photos={"cat": photo_set("p")})
    for state, reader in (
        (bank(), "1"),
        (bank(info=INFO), "2"),
        (photographed, "4"),
        (rollback(photographed, 0), "4"),
        (photographed.settled(), "4"),
        (bank(calibration=CALIBRATION), "4"),
        (changed_in_every_way(), "4"),
    ):
        state.save(path)
        assert parts(path)[0]["min_reader"] == reader
        again = ClassBank.verify(path, "a" * 64)
        assert (content(again), again.content_digest) == (content(state), state.content_digest)


@given(names=st.lists(st.text(min_size=1).filter(lambda n: n.strip() and n.isprintable()), unique=True, max_size=5))
def test_any_names_survive(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    bank(names).save(file)
    assert ClassBank.load(file).names == tuple(names)


def test_classes_that_are_alike_are_stored_together(path: Path) -> None:
    names = [f"n{number}" for number in range(1000)]
    alike, other = ClassInfo(added="2026-01-01T00:00:00Z"), ClassInfo(background=True)
    info = {name: other if name in ("n7", "n8", "n500") else alike for name in names[2:]}
    bank(names, info=info).save(path)
    assert json.loads(parts(path)[0]["info"]) == [
        {"rows": [[2, 7], [9, 500], [501, 1000]], "added": "2026-01-01T00:00:00Z"},
        {"rows": [[7, 9], [500, 501]], "background": True},
    ]
    assert ClassBank.load(path).info == info


def test_a_large_step_has_its_text_in_a_tensor(path: Path) -> None:
    names = [f"a rather long name of class {number}" for number in range(4000)]
    large = add(bank(), names, unit_rows(names))
    large.save(path)
    assert int.from_bytes(path.read_bytes()[:8], "little") < 5000
    assert content(ClassBank.load(path)) == content(large)


def test_a_base_is_opened_where_a_file_says_or_is_given(path: Path, tmp_path: Path) -> None:
    shared, file = ClassBank.load(path).shared(path), tmp_path / "changed.safetensors"
    changed = add(shared, ["owl"], unit_rows(["owl"]))
    changed.save(file)
    assert content(ClassBank.load(file)) == content(changed)
    path.rename(tmp_path / "moved.safetensors")
    with pytest.raises(BaseMissingError, match="pass base="):
        ClassBank.load(file)
    assert content(ClassBank.load(file, base=shared)) == content(changed)
    bank(NAMES[:2]).save(path)
    with pytest.raises(BaseMissingError, match="another is now"):
        ClassBank.load(file)
    assert list(ClassBank.load(file, base=bank(("dog", "cat"))).names) == ["dog", "cat", "owl"]


def test_steps_that_were_read_before_are_not_read_again(path: Path) -> None:
    first = add(bank(), ["owl"], unit_rows(["owl"]))
    add(first, ["emu"], unit_rows(["emu"])).save(path)
    again = ClassBank.load(path, base=bank(), previous=first)
    assert again.history[0] is first.history[0]
    rollback(ClassBank.load(path), 1).save(path)
    assert list(ClassBank.load(path, base=bank(), previous=again).names) == [*NAMES, "owl"]


# --------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("written", [bank, changed_in_every_way], ids=["plain", "log"])
def test_a_changed_byte_is_noticed_wherever_it_is(path: Path, written: Any) -> None:
    sound = written()
    sound.save(path)
    data = path.read_bytes()
    for position in range(0, len(data), 1 if NIGHTLY else 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            changed = ClassBank.load(path, "a" * 64)
        except (BankError, SchemaError):
            continue
        assert (content(changed), changed.content_digest) == (content(sound), sound.content_digest), position


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metadata": {"min_reader": "5"}}, SchemaError, "version 5"),
        ({"metadata": {"format": "other"}}, BankError, "not a class bank"),
        ({"metadata": {"format": None}}, BankError, "not a class bank"),
        ({"metadata": {"provenance": None}}, BankError, "provenance"),
        ({"metadata": {"provenance": "{"}}, BankError, "b.safetensors: "),
        ({"metadata": {"provenance": "{}"}}, BankError, "digest"),
        ({"metadata": {"info": '[{"rows": [[0, 1]], "background": true}]'}}, BankError, "digest"),
        ({"metadata": {"history": None}}, BankError, "history"),
        ({"metadata": {"content_digest": "0"}}, BankError, "digest"),
        ({"embeddings": ROWS[::-1].copy()}, BankError, "digest"),
        ({"embeddings": ROWS.astype(np.float16)}, BankError, "expected tensors"),
        ({"offsets": np.array([0, 4, 15, 17])}, BankError, "digest"),
        ({"offsets": None}, BankError, "expected tensors"),
        ({"extra": ROWS}, BankError, "expected tensors"),
    ],
)
def test_changed_files(path: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassBank.load(rewritten(path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"records": "[]"}}, "records do not match"),
        ({"metadata": {"encoder_digest": "b" * 64}}, "records do not match"),
        ({"metadata": {"checkpoint": "{}"}}, "records do not match"),
        ({"s1.0.rows": None, "s1.1.rows": None, "s1.1.digests": None}, "'s1.0.rows' is missing"),
        ({"s1.0.rows": unit_rows("xy")}, "content of s1 does not match"),
        ({"s1.1.rows": None}, "content of s1 does not match"),
        ({"embeddings": ROWS[::-1].copy()}, "content does not match its digest"),
        ({"embeddings": None}, "'embeddings' is missing"),
        ({"embeddings": ROWS[:2]}, r"expected float32 \(3, D\)"),
    ],
)
def test_changed_logs(path: Path, changes: dict[str, Any], message: str) -> None:
    changed_in_every_way().save(path)
    with pytest.raises(BankError, match=rf"b\.safetensors: .*{message}"):
        ClassBank.load(rewritten(path, **changes))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 100])
def test_files_that_are_no_banks(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(BankError, match=r"b\.safetensors"):
        ClassBank.load(path)


@pytest.mark.parametrize("history", [True, False], ids=["log", "plain"])
def test_large_tensors_are_mapped_and_checked_by_verify_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, history: bool
) -> None:
    photographed = add(bank(), ["owl"], unit_rows(["owl"]), photos={"owl": photo_set("p", "q")})
    state = photographed if history else bank(photos={"cat": photo_set("p", "q")})
    state.save(path)
    data, row = path.read_bytes(), unit_rows(["q"]).tobytes()
    assert data.count(row) == 1
    path.write_bytes(data.replace(row, bytes([row[0] ^ 1]) + row[1:]))
    with pytest.raises(BankError, match="does not match its digest"):
        ClassBank.load(path)
    for module in ("old_files", "file"):
        monkeypatch.setattr(f"sar_infer.bank.{module}.MAPPED_BYTES", 1)
    assert ClassBank.load(path).content_digest == state.content_digest
    with pytest.raises(BankError, match="does not match its digest"):
        ClassBank.verify(path)
    bank().save(path)
    path.write_bytes(path.read_bytes()[:-40] + bytes(4) + path.read_bytes()[-36:])
    assert ClassBank.load(path).content_digest == bank().content_digest
    with pytest.raises(BankError, match="does not match its digest"):
        ClassBank.verify(path)
