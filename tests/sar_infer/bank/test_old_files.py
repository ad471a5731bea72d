"""Files of versions 1 to 3, which earlier releases wrote, answer as these releases did (``samples/answers.json``)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from support.banks import content, example_bank, unit_rows
from support.bundles import BANK_NAMES, DIM, name_rows, write_bundle
from support.examples import NIGHTLY
from support.trained import example_statistics

from sar_infer import Classifier
from sar_infer.bank import ClassBank, ClassInfo, add, rollback
from sar_infer.errors import BankError, InputError, SchemaError

SAMPLES = Path(__file__).parent / "samples"
ANSWERS = json.loads((SAMPLES / "answers.json").read_text())
ROWS = unit_rows([f"image{number}" for number in range(5)], DIM)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("kind", ["plain", "statistics"])
@pytest.mark.parametrize("written", [False, True], ids=["as it was", "written anew"])
def test_every_version_answers_as_before(tmp_path: Path, version: int, kind: str, written: bool) -> None:
    bundle = write_bundle(tmp_path / "bundle", trained=example_statistics() if kind == "statistics" else None)
    path = SAMPLES / f"version-{version}.safetensors"
    if written:
        path = tmp_path / "new.safetensors"
        bank = Classifier.open(bundle, "cpu", bank=SAMPLES / f"version-{version}.safetensors").bank
        rollback(add(bank, ["x"], name_rows(["x"])), len(bank.history)).save(path)
    classifier = Classifier.open(bundle, "cpu", bank=path)
    classes, expected = classifier.class_set(), ANSWERS[f"{version} {kind}"]
    assert (list(classes.names), classes.branch) == (expected["names"], expected["branch"])
    logits = classifier.logits(ROWS, classes)
    apart = (logits - expected["logits"]) - (logits - expected["logits"]).mean(axis=1, keepdims=True)
    assert np.abs(apart).max() <= 1e-6 * np.abs(expected["logits"]).max()
    assert classifier.scores(logits, classes) == pytest.approx(np.array(expected["scores"]), abs=1e-5)
    assert (None if classes.calibrated is None else classes.calibrated.tolist()) == expected["calibrated"]


def test_phrases_that_version_1_had_in_its_provenance(tmp_path: Path) -> None:
    example_bank().save(tmp_path / "b")
    with safe_open(tmp_path / "b", "np") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    phrases = {"cat": ["a cat", "a tabby"], "fox": ["fox"], "gone": ["away"]}
    metadata |= {"schema_version": "1", "provenance": json.dumps({"list": "mine", "phrases": phrases})}
    for later in ("info", "history", "record_digest"):
        del metadata[later]
    (tmp_path / "b").write_bytes(save(tensors, metadata))
    bank = ClassBank.load(tmp_path / "b")
    assert (dict(bank.info), bank.added_count) == ({"cat": ClassInfo(phrases=("a cat", "a tabby"))}, 0)
    assert (bank.phrases("cat"), bank.phrases("fox")) == (("a cat", "a tabby"), ("fox",))
    assert bank.provenance == {"list": "mine"}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_changed_byte_is_noticed(tmp_path: Path, version: int) -> None:
    sample, path = SAMPLES / f"version-{version}.safetensors", tmp_path / "b.safetensors"
    sound, data = ClassBank.load(sample), sample.read_bytes()
    for position in range(0, len(data), 1 if NIGHTLY else 1 + len(data) // 200):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            changed = ClassBank.load(path)
        except (BankError, SchemaError):
            continue
        assert (tuple(changed.names), changed.content_digest) == (tuple(sound.names), sound.content_digest), position
        assert changed.photos.keys() == sound.photos.keys(), position


def test_their_history_is_text_that_cannot_be_undone() -> None:
    bank = ClassBank.load(SAMPLES / "version-2.safetensors")
    assert [step.summary for step in bank.history] == [
        "added 'owl', 'zebra'",
        "renamed 'red' to 'ruby'",
        "removed 'green'",
        "changed 'blue' (threshold), 'grey thing' (background)",
        "added 'cat'",
        "took back step 5; as after step 4",
    ]
    assert not any(step.can_undo for step in bank.history)
    with pytest.raises(InputError, match="the earliest to go back to is 6"):
        rollback(bank, 5)
    later = add(bank, ["emu"], name_rows(["emu"]))
    assert list(rollback(later, 6).names) == list(bank.names)


def test_on_its_bundle_only_the_difference_is_kept(tmp_path: Path) -> None:
    bundled = ClassBank(BANK_NAMES, name_rows(BANK_NAMES), "e" * 64).shared(tmp_path / "bank.safetensors")
    bank = ClassBank.load(SAMPLES / "version-2.safetensors", base=bundled)
    alone = ClassBank.load(SAMPLES / "version-2.safetensors")
    assert (tuple(bank.names), bank.info) == (tuple(alone.names), alone.info)
    assert bank.base is bundled.base
    assert bank.positions_from(bundled, [0, 1, 2, 3]).tolist() == [0, -1, 1, 2]  # red is ruby now, green is gone
    assert bank.info["ruby"] == ClassInfo(phrases=("red",))
    bank.save(tmp_path / "new.safetensors")
    again = ClassBank.load(tmp_path / "new.safetensors", base=bundled)
    assert (content(again), again.content_digest) == (content(bank), bank.content_digest)
