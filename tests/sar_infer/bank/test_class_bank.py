from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save
from support.banks import content, learning, photo_set, unit_rows
from support.disk import fill_disk

from sar_infer.bank import ClassBank, ClassInfo, add, edits, rollback
from sar_infer.errors import BankError, BaseMissingError, SchemaError
from sar_infer.storage.named_tensors import digest_of

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
    every_kind = {"format", "schema_version", "min_reader", "encoder_digest", "content_digest"}
    assert set(metadata) == every_kind | {"provenance", "info", "history", "record_digest"}
    assert [metadata[key] for key in ("format", "schema_version", "min_reader")] == ["sar-bank", "2", "1"]
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
        (("a", "a"), unit(2), "'a'"),
        (("a", " "), unit(2), "class 1"),
        (("a", "b"), unit(3), r"\(2, D\)"),
        (("a",), unit(1).astype(np.float64), "float64"),
        (("a", "b"), unit(2) * np.float32([[1], [1.01]]), "1.01"),
        (("a", "b"), unit(2) * np.float32([[1], [np.nan]]), "nan"),
    ],
)
def test_unsound_content(names, rows, message: str) -> None:
    with pytest.raises(BankError, match=message):
        ClassBank(names, rows, "a" * 64)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metadata": {"min_reader": "5"}}, SchemaError, "version 5"),
        ({"metadata": {"format": "other"}}, BankError, "not a class bank"),
        ({"metadata": {"format": None}}, BankError, "not a class bank"),
        ({"metadata": {"provenance": None}}, BankError, "provenance"),
        ({"metadata": {"provenance": "{"}}, BankError, "b.safetensors: "),
        ({"metadata": {"provenance": "[]"}}, BankError, "provenance"),
        ({"metadata": {"provenance": "{}"}}, BankError, "digest"),
        ({"metadata": {"info": '[{"rows": [[0, 1]], "background": true}]'}}, BankError, "digest"),
        ({"metadata": {"history": None}}, BankError, "history"),
        ({"metadata": {"content_digest": "0"}}, BankError, "digest"),
        ({"embeddings": unit(3)[::-1].copy()}, BankError, "digest"),
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
    with pytest.raises(BankError, match=r"b\.safetensors"):
        ClassBank.load(rewritten(path, {"content_digest": digest}, **tensors))


def test_every_single_changed_byte_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            changed = ClassBank.load(path, "a" * 64)
        except BankError:
            continue
        assert (changed.names, changed.content_digest) == (NAMES, bank().content_digest), position
        assert changed.provenance == {"list": "mine"}, position


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_not_a_bank(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BankError, match=r"b\.safetensors"):
        ClassBank.load(path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        bank(["other"]).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_provenance_is_json(path: Path) -> None:
    assert json.loads(contents(path)[0]["provenance"]) == {"list": "mine"}


# ------------------------------------------------------------------------------------------- what is known of classes
INFO = {
    "cat": ClassInfo(("a cat", "a tabby"), ("Felis catus",), True, 0.25, "2026-01-01T00:00:00Z"),
    "é": ClassInfo(threshold=1.0),
}


def informed() -> ClassBank:
    return ClassBank(NAMES, unit(3), "a" * 64, info=INFO)


def test_info_and_history_survive(tmp_path: Path) -> None:
    changed = edits.remove(edits.rename(informed(), "cat", "Tabby"), ["é"], by="a test")
    changed.save(tmp_path / "b")
    loaded = ClassBank.load(tmp_path / "b")
    assert (loaded.info, [vars(step) for step in loaded.history]) == (
        changed.info,
        [vars(step) for step in changed.history],
    )
    metadata, _ = contents(tmp_path / "b")
    assert (metadata["schema_version"], metadata["min_reader"]) == ("4", "4")
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


def test_classes_that_are_alike_are_stored_together(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(1000)]
    alike, other = ClassInfo(added="2026-01-01T00:00:00Z"), ClassInfo(background=True)
    info = {name: other if name in ("n7", "n8", "n500") else alike for name in names[2:]}
    ClassBank(tuple(names), unit(1000), "a" * 64, info=info).save(tmp_path / "b")
    assert json.loads(contents(tmp_path / "b")[0]["info"]) == [
        {"rows": [[2, 7], [9, 500], [501, 1000]], "added": "2026-01-01T00:00:00Z"},
        {"rows": [[7, 9], [500, 501]], "background": True},
    ]
    assert ClassBank.load(tmp_path / "b").info == info


def test_a_plain_bank_can_be_read_by_version_1_and_no_other(tmp_path: Path) -> None:
    informed().save(tmp_path / "b")
    assert contents(tmp_path / "b")[0]["min_reader"] == "2"
    bank().save(tmp_path / "b")
    assert contents(tmp_path / "b")[0]["min_reader"] == "1"


def test_arrays_by_class() -> None:
    known = informed()
    assert known.background.tolist() == [True, False, False]
    np.testing.assert_array_equal(known.thresholds, np.float32([0.25, np.nan, 1]))
    assert (bank().background, bank().thresholds, known.added_count, bank().added_count) == (
        None,
        None,
        len(known.names) - 2,
        0,
    )


def test_info_of_no_class() -> None:
    with pytest.raises(BankError, match="owl"):
        ClassBank(NAMES, unit(3), "a" * 64, info={"owl": ClassInfo()})


def resealed(path: Path, **texts: str) -> Path:
    """The file with other text in its metadata, and a digest made to match."""
    metadata = contents(path)[0]
    found = {key: texts.get(key, metadata[key]) for key in ("provenance", "info", "history")}
    data = [text.encode() for text in (metadata["encoder_digest"], *found.values())]
    digest = hashlib.sha256(b"".join(len(text).to_bytes(8, "little") + text for text in data))
    return rewritten(path, {**found, "record_digest": digest.hexdigest()})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"info": "{}"}, "info"),
        ({"info": "[5]"}, "info"),
        ({"info": "[{}]"}, r"info\[0\]\.rows"),
        ({"info": '[{"rows": [[0, 1.5]]}]'}, r"\[0\]\[1\]"),
        ({"info": '[{"rows": [[0, 4]]}]'}, "rows 0 to 4"),
        ({"info": '[{"rows": [[-1, 1]]}]'}, "rows -1 to 1"),
        ({"info": '[{"rows": [[1, 1]]}]'}, "rows 1 to 1"),
        ({"info": '[{"rows": [[0, 2]]}, {"rows": [[1, 3]]}]'}, "rows 1 to 3"),
        ({"info": '[{"rows": [[0, 1]], "threshold": 1e999}]'}, "threshold: .*inf"),
        ({"info": '[{"rows": [[0, 1]], "threshold": NaN}]'}, "threshold: .*nan"),
        ({"info": '[{"rows": [[0, 1]], "threshold": 2}]'}, "threshold"),
        ({"info": '[{"rows": [[0, 1]], "aliases": ["é"]}]'}, "alias 'é'"),
        ({"info": "[" * 100_000}, "recursion"),
        ({"info": '[{"rows": [[0, ' + "9" * 5000 + "]]}]"}, "integer string conversion"),
        ({"info": '[{"rows": [[0, 1]], "aliases": ["a\\u0007"]}]'}, "control character"),
        ({"history": "{}"}, "history"),
        ({"history": "[{}]"}, r"\[0\]\.action"),
        ({"history": '[{"n": 2, "at": "", "action": "add", "summary": ""}]'}, "numbered"),
    ],
)
def test_records_that_are_wrong_in_themselves(path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(BankError, match=rf"b\.safetensors: .*{message}"):
        ClassBank.load(resealed(path, **texts))
    ClassBank.load(resealed(path, info="[]", history="[]"))


def first_version(path: Path, provenance: str) -> Path:
    bank().save(path)
    later = {"info": None, "history": None, "record_digest": None}
    return rewritten(path, {**later, "schema_version": "1", "provenance": provenance})


def test_phrases_that_version_1_had_in_its_provenance(tmp_path: Path) -> None:
    several = {"cat": ["a cat", "a tabby"], "é": ["é"], "gone": ["away"]}
    loaded = ClassBank.load(first_version(tmp_path / "b", json.dumps({"list": "mine", "phrases": several})))
    assert (dict(loaded.info), loaded.added_count) == ({"cat": ClassInfo(phrases=("a cat", "a tabby"))}, 0)
    assert (loaded.phrases("cat"), loaded.phrases("é")) == (("a cat", "a tabby"), ("é",))
    assert loaded.provenance == {"list": "mine"}
    changed = add(loaded, ["cat"], unit(3)[2:])
    changed.save(tmp_path / "b")
    assert ClassBank.load(tmp_path / "b").phrases("cat") == ("cat",)


@pytest.mark.parametrize("phrases", ["5", '{"cat": "a cat"}', '{"cat": [""]}', '{"cat": [5]}'])
def test_phrases_of_version_1_that_are_none(tmp_path: Path, phrases: str) -> None:
    with pytest.raises(BankError, match="phrase"):
        ClassBank.load(first_version(tmp_path / "b", f'{{"phrases": {phrases}}}'))


# ------------------------------------------------------------------------------------------------------------ version 4
def logged() -> ClassBank:
    """A bank with a log of every kind of change."""
    photos = {"owl": photo_set("p", "q")}
    known = add(informed(), ["owl", "emu"], unit_rows(["owl", "emu"]), {"emu": ClassInfo(threshold=0.5)}, photos)
    known = edits.amend(known, {"owl": ClassInfo(aliases=("hooter",), background=True)})
    known = edits.remove_photos(edits.rename(known, "é", "e"), "owl", photo_set("q").digest_set)
    known = edits.learn(edits.fit(known, {"slope": np.array(0.5)}), learning({"owl": "o"}))
    return edits.remove(rollback(edits.remove(known, ["emu"]), 6), ["emu"])


def test_every_single_changed_byte_of_a_log_is_noticed(tmp_path: Path) -> None:
    path, bank = tmp_path / "log.safetensors", logged()
    bank.save(path)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            changed = ClassBank.load(path, "a" * 64)
        except (BankError, SchemaError):
            continue
        assert (content(changed), changed.content_digest) == (content(bank), bank.content_digest), position


RECORD = {"n": 1, "at": "", "action": "add", "summary": ""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": "{}"}, "records"),
        ({"records": "[{}]"}, "action"),
        ({"records": [{**RECORD, "n": 2}]}, "numbered"),
        ({"records": [{**RECORD, "action": "explode"}]}, "action"),
        ({"records": [{**RECORD, "action": "rollback"}]}, "rollback"),
        ({"records": [{**RECORD, "action": "rollback", "to": 1}]}, "rollback"),
        ({"records": [{**RECORD, "to": 0}]}, "add"),
        ({"records": [{**RECORD, "changes": {}}]}, "changes of step 1"),
        ({"records": [{**RECORD, "changes": [5]}]}, "unknown kind"),
        ({"records": [{**RECORD, "changes": [{"kind": "explode"}]}]}, "explode"),
        ({"records": [{**RECORD, "changes": [{"kind": "add", "names": ["owl"]}]}]}, "s1.0.rows"),
        ({"records": [{**RECORD, "changes": [{"kind": "remove"}]}]}, "names"),
        ({"records": [{**RECORD, "changes": [{"kind": "remove", "names": "cat"}]}]}, "names"),
        ({"records": [{**RECORD, "changes": [{"kind": "forget", "name": "cat", "digests": ["xy"]}]}]}, "hex"),
        ({"records": [{**RECORD, "changes": [{"kind": "set", "settings": {"cat": {"threshold": "x"}}}]}]}, "threshold"),
        ({"records": [{**RECORD, "changes": [{"kind": "fit", "tensors": ["mean"]}]}]}, "s1.0.mean"),
        ({"records": [{**RECORD, "changes": [{"kind": "learn", "names": [], "numbers": {}}]}]}, "photos"),
        ({"records": "[" * 100_000}, "recursion"),
        ({"provenance": "[]"}, "provenance"),
        ({"base": "[]"}, "base"),
    ],
)
def test_logs_that_are_wrong_in_themselves(tmp_path: Path, changes: dict, message: str) -> None:
    """With a digest made to match."""
    path = tmp_path / "b.safetensors"
    rollback(add(bank(), ["owl"], unit_rows(["owl"])), 0).save(path)
    metadata = {key: text for key, text in contents(path)[0].items() if key not in ("records", "record_digest")}
    metadata["records"] = "[]"
    metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
    order = ("encoder_digest", "content_digest", "base", "provenance", "records", "info")
    parts = [part.encode() for key in order for part in (key, metadata[key])]
    digest = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()
    with pytest.raises(BankError, match=rf"b\.safetensors: .*{message}"):
        ClassBank.load(rewritten(path, {**metadata, "record_digest": digest}))


def test_a_large_step_has_its_text_in_a_tensor(tmp_path: Path) -> None:
    names = [f"a rather long name of class {number}" for number in range(4000)]
    big = add(bank(), names, unit_rows(names))
    big.save(tmp_path / "b")
    assert int.from_bytes((tmp_path / "b").read_bytes()[:8], "little") < 5000
    assert content(ClassBank.load(tmp_path / "b")) == content(big)


def test_a_base_is_found_by_the_place_that_a_file_names_or_is_given(tmp_path: Path) -> None:
    place = tmp_path / "base.safetensors"
    bank().save(place)
    shared = ClassBank.load(place).shared(place)
    changed = add(shared, ["owl"], unit_rows(["owl"]))
    changed.save(tmp_path / "b.safetensors")
    assert content(ClassBank.load(tmp_path / "b.safetensors")) == content(changed)
    place.rename(tmp_path / "moved.safetensors")
    with pytest.raises(BaseMissingError, match="pass base="):
        ClassBank.load(tmp_path / "b.safetensors")
    assert content(ClassBank.load(tmp_path / "b.safetensors", base=shared)) == content(changed)
    ClassBank(NAMES[:2], unit(2), "a" * 64).save(place)
    with pytest.raises(BaseMissingError, match="another is now"):
        ClassBank.load(tmp_path / "b.safetensors")
    other = ClassBank(("dog", "cat"), unit(2), "a" * 64)
    assert list(ClassBank.load(tmp_path / "b.safetensors", base=other).names) == ["dog", "cat", "owl"]


def test_what_a_file_has_in_common_with_one_that_is_known_is_not_read_again(tmp_path: Path) -> None:
    path, first = tmp_path / "b", add(bank(), ["owl"], unit_rows(["owl"]))
    add(first, ["emu"], unit_rows(["emu"])).save(path)
    again = ClassBank.load(path, base=bank(), previous=first)
    assert again.history[0] is first.history[0]
    rollback(ClassBank.load(path), 1).save(path)
    assert list(ClassBank.load(path, base=bank(), previous=again).names) == [*NAMES, "owl"]


def test_a_large_base_is_mapped_and_checked_by_verify_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.bank.old_files.MAPPED_BYTES", 16)
    path = tmp_path / "b"
    bank().save(path)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    assert ClassBank.load(path).content_digest == bank().content_digest
    with pytest.raises(BankError, match="digest"):
        ClassBank.verify(path)
