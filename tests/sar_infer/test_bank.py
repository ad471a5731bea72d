from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from sar_infer.bank import ClassBank
from sar_infer.errors import BankError, SchemaError
from sar_infer.named_tensors import digest_of

NAMES = ("cat", "日本 spitz", "é")


def unit(rows: int, dim: int = 4) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def bank(names=NAMES) -> ClassBank:
    return ClassBank(tuple(names), unit(len(names)), "a" * 64, {"list": "mine"})


def contents(path: Path) -> tuple[dict, dict]:
    with safe_open(path, "np") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def rewritten(path: Path, metadata: dict | None = None, **tensors) -> Path:
    """The file with parts replaced (None removes one)."""
    old_metadata, old_tensors = contents(path)
    new = {key: value for key, value in {**old_tensors, **tensors}.items() if value is not None}
    meta = {key: value for key, value in {**old_metadata, **(metadata or {})}.items() if value is not None}
    path.write_bytes(save(new, meta))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bank().save(tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


def test_round_trip(path: Path) -> None:
    loaded = ClassBank.load(path, "a" * 64)
    assert loaded.names == NAMES
    np.testing.assert_array_equal(loaded.embeddings, unit(3))
    assert (loaded.encoder_digest, loaded.provenance) == ("a" * 64, {"list": "mine"})
    assert loaded.content_digest == bank().content_digest


def test_the_format_is_as_documented(path: Path) -> None:
    metadata, tensors = contents(path)
    assert set(metadata) == {"format", "schema_version", "min_reader", "encoder_digest", "content_digest", "provenance"}
    assert (metadata["format"], metadata["min_reader"]) == ("sar-bank", "1")
    assert bytes(tensors["names"]).decode() == "".join(NAMES)
    assert tensors["offsets"].tolist() == [0, 3, 15, 17]
    assert (tensors["embeddings"].dtype, tensors["offsets"].dtype) == (np.float32, np.int64)


@given(names=st.lists(st.text(min_size=1).filter(lambda n: n.strip() and n.isprintable()), unique=True, max_size=5))
def test_any_names_survive(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    bank(names).save(file)
    assert ClassBank.load(file).names == tuple(names)


def test_rows_are_read_only(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        ClassBank.load(path).embeddings[0, 0] = 1
    mine = unit(1)
    ClassBank(("a",), mine, "a" * 64)
    mine[0, 0] = 1


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (("a", "a"), unit(2), "'a' stands more than once"),
        (("a", " "), unit(2), "class 1 has an empty name"),
        (("a", "b"), unit(3), r"expected float32 \(2, D\)"),
        (("a",), unit(1).astype(np.float64), "expected float32"),
        (("a", "b"), unit(2) * np.float32([[1], [1.01]]), "'b' has length 1.01, expected 1"),
        (("a", "b"), unit(2) * np.float32([[1], [np.nan]]), "'b' has length nan, expected 1"),
    ],
)
def test_unsound_content(names, rows, message: str) -> None:
    with pytest.raises(BankError, match=message):
        ClassBank(names, rows, "a" * 64)


def test_another_encoder_is_refused_with_both_digests(path: Path) -> None:
    with pytest.raises(BankError, match=f"expected encoder digest {'b' * 64}, the bank has {'a' * 64}"):
        ClassBank.load(path, "b" * 64)
    assert ClassBank.load(path).names == NAMES


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metadata": {"min_reader": "3"}}, SchemaError, "needs a reader of version 3, this is 2: upgrade"),
        ({"metadata": {"format": "other"}}, BankError, "not a class bank"),
        ({"metadata": {"format": None}}, BankError, "not a class bank"),
        ({"metadata": {"provenance": None}}, BankError, "no 'provenance'"),
        ({"metadata": {"provenance": "{"}}, BankError, "b.safetensors: "),
        ({"metadata": {"content_digest": "0"}}, BankError, "does not match its digest"),
        ({"embeddings": unit(3)[::-1].copy()}, BankError, "does not match its digest"),
        ({"embeddings": unit(3).astype(np.float16)}, BankError, "expected tensors"),
        ({"offsets": None}, BankError, "expected tensors"),
        ({"extra": unit(1)}, BankError, "expected tensors"),
    ],
)
def test_changed_files(path: Path, changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassBank.load(rewritten(path, **changes))


@pytest.mark.parametrize("offsets", [[0, 3, 15, 18], [1, 3, 15, 17], [0, 15, 3, 17], [], [0, 4, 15, 17]])
def test_offsets_that_do_not_fit(path: Path, offsets: list[int]) -> None:
    """With a digest made to match, so that the offsets themselves are what is refused."""
    tensors = contents(path)[1]
    tensors["offsets"] = np.array(offsets, dtype=np.int64)
    digest = digest_of(tensors["names"], tensors["offsets"], tensors["embeddings"])
    with pytest.raises(BankError, match=r"b\.safetensors: "):
        ClassBank.load(rewritten(path, {"content_digest": digest}, **tensors))


def test_every_single_changed_byte_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    provenance = range(data.index(b"provenance"), data.index(b"provenance") + 40)
    for position in set(range(0, len(data), 3)) - set(provenance):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            changed = ClassBank.load(path, "a" * 64)
        except BankError:
            continue
        assert (changed.names, changed.content_digest) == (NAMES, bank().content_digest), position


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_not_a_bank(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BankError, match="not a readable safetensors file"):
        ClassBank.load(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no such bank file"):
        ClassBank.load(tmp_path / "b.safetensors")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        bank(["other"]).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_provenance_is_json(path: Path) -> None:
    assert json.loads(contents(path)[0]["provenance"]) == {"list": "mine"}
