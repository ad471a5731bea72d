"""Any sequence of changes against a model in plain dictionaries: a bank is a dictionary with a past."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.banks import DIM, content, fitted, learned, learning, photo_set, unit_row, unit_rows
from support.examples import examples

from sar_infer.bank import (
    ClassBank,
    Images,
    add,
    add_photos,
    carry,
    fit,
    forget_photos,
    learn,
    remove,
    rename,
    rollback,
    set_class,
    set_unknown_threshold,
)
from sar_infer.bank.steps import UNDO_RECORDS, UNDO_STEPS
from sar_infer.errors import BankError, ClassNameError, InputError

NAMES = st.sampled_from([*"abcdef", "A", "B c", "b  C", "日本"])
ALIASES = st.sampled_from(["x", "y", "a", "Y"])
MODELS = {
    word: {"precision": np.outer(unit_row(word), unit_row(word)), "slope": np.array(0.5), "counts": np.arange(3)}
    for word in "uv"
}
LABELS = st.lists(st.sampled_from("pqrst"), unique=True, min_size=1, max_size=3)
Class = dict[str, Any]


def key(name: str) -> str:
    return " ".join(name.split()).lower()


class Model:
    """The classes of a bank as a list of dictionaries."""

    def __init__(self, names: str) -> None:
        self.encoder = "x"
        self.model: str | None = None
        self.learned: dict[str, Any] | None = None
        self.unknown: float | None = None
        self.made = 0
        self.classes: list[Class] = [self.fresh(name, name) | {"of_base": True} for name in names]

    def fresh(self, name: str, row: str) -> Class:
        self.made += 1
        plain = {"phrases": (), "aliases": (), "background": False, "threshold": None, "only": False, "sum": None}
        return {"id": self.made, "name": name, "row": row, "photos": [], "parked": {}, "of_base": False} | plain

    def find(self, name: str) -> Class | None:
        return next((one for one in self.classes if key(one["name"]) == key(name)), None)

    def alias(self, name: str) -> Class | None:
        return next((one for one in self.classes if key(name) in map(key, one["aliases"])), None)

    def any(self, name: str) -> Class | None:
        return self.find(name) or self.alias(name)

    def add(self, names: dict[str, str]) -> bool:
        """Return False if it is refused."""
        keys = [key(name) for name in names]
        if len(set(keys)) < len(keys) or any(self.alias(name) for name in names):
            return False
        for name, row in names.items():
            had = self.find(name)
            if had is None:
                self.classes.append(self.fresh(name, row))
            else:
                had.update(row=row, phrases=())
        return True

    @property
    def stale(self) -> bool:
        """Classes, embeddings or the model are not those that the photos without labels were looked at with."""
        assert self.learned is not None
        left = [pair for pair in self.learned["classes"] if any(one["id"] == pair[0] for one in self.classes)]
        return self.learned["model"] != self.model or sorted(left) != sorted(self.rows)

    @property
    def rows(self) -> list[tuple[int, str]]:
        return [(one["id"], one["row"]) for one in self.classes]

    def learn(self, sums: dict[str, str], photos: int) -> bool:
        classes = [self.any(name) for name in sums]
        if None in classes or any(classes.count(one) > 1 for one in classes):
            return False
        self.learned = {"photos": photos, "classes": self.rows, "model": self.model} if photos else None
        if self.learned is not None:
            self.learned["sums"] = [(one and one["id"], row) for one, row in zip(classes, sums.values(), strict=True)]
        for one in self.classes:
            one["sum"] = None
        for number, (one, row) in enumerate(zip(classes, sums.values(), strict=True)):
            assert one is not None
            one["sum"] = (row, number)
        return True

    def rename(self, old: str, new: str) -> bool:
        one, owner = self.any(old), self.any(new)
        if one is None or owner not in (None, one):
            return False
        if one["name"] != new:
            phrases = one["phrases"] or (one["name"],)
            one["aliases"] = tuple(alias for alias in one["aliases"] if key(alias) != key(new))
            one.update(name=new, phrases=() if phrases == (new,) else phrases)
        return True

    def set(self, name: str, aliases: tuple[str, ...], threshold: float | None, background: bool) -> bool:
        one = self.any(name)
        if one is None or len({key(alias) for alias in aliases}) < len(aliases):
            return False
        if any(self.find(alias) or self.alias(alias) not in (None, one) for alias in aliases):
            return False
        one.update(aliases=aliases, threshold=threshold, background=background)
        return True

    def carry(self, encoder: str) -> None:
        for one in self.classes:
            one["parked"] = {**one["parked"], **({self.encoder: one["photos"]} if one["photos"] else {})}
            one.update(row=embedded(encoder, one["phrases"] or (one["name"],)), sum=None)
            one["photos"] = one["parked"].pop(encoder, [])
        self.encoder, self.model, self.learned, self.unknown = encoder, None, None, None

    def forget(self, identity: int, labels: list[str]) -> None:
        for one in self.classes:
            if one["id"] == identity:
                one["photos"] = [label for label in one["photos"] if label not in labels]
                parked = {word: [p for p in photos if p not in labels] for word, photos in one["parked"].items()}
                one["parked"] = {word: photos for word, photos in parked.items() if photos}


def embedded(encoder: str, texts: tuple[str, ...]) -> str:
    return f"{encoder}|{'+'.join(texts)}"


class Machine(RuleBasedStateMachine):
    """A bank, on a base or without, and its model, which saving, loading and folding make no difference to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "b.safetensors")
        self.digests: dict[str, str] = {}
        self.begun_at_home = True

    @initialize(on_base=st.booleans())
    def begin(self, on_base: bool) -> None:
        self.on_base, self.model, self.base = on_base, Model("abc"), None
        self.bank = ClassBank.of([*"abc"], unit_rows("abc"), "x" * 64, images=Images("x"))
        if on_base:
            path = Path(self.folder.name, "base.safetensors")
            self.bank.save(path)
            self.bank = self.base = ClassBank.load(path).shared(path)
        self.states: list[Model] = [copy.deepcopy(self.model)]
        self.line: list[tuple[int, str | None]] = []  # steps that can be undone, each with the record that it sets
        self.begun, self.back_to = 0, dict[int, int]()

    def done(self, bank: ClassBank, accepted: bool = True, record: str | None = None) -> None:
        """Take up the bank after an edit, and remember its state if there was a change."""
        assert accepted
        if bank is not self.bank:
            self.states.append(copy.deepcopy(self.model))
            self.line.append((len(self.states) - 1, record))
            while len(self.line) > UNDO_STEPS or [kind for _, kind in self.line].count(record or "") > UNDO_RECORDS:
                self.begun, _ = self.line.pop(0)
        self.bank = bank

    def refused(self, edit: Any, accepted: bool, record: str | None = None) -> None:
        if accepted:
            self.done(edit(), record=record)
            return
        with pytest.raises((BankError, ClassNameError, InputError)):
            edit()
        self.model = copy.deepcopy(self.states[-1])

    @rule(names=st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=3))
    def add(self, names: dict[str, int]) -> None:
        rows = {name: f"{key(name)}{number}" if number else name for name, number in names.items()}
        self.refused(lambda: add(self.bank, [*rows], unit_rows(rows.values())), self.model.add(rows))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        one = self.model.any(name)
        if one is not None:
            self.model.classes.remove(one)
        self.refused(lambda: remove(self.bank, [name]), one is not None)

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        self.refused(lambda: rename(self.bank, old, new), self.model.rename(old, new))

    @rule(
        name=NAMES,
        aliases=st.lists(ALIASES, max_size=2).map(tuple),
        threshold=st.sampled_from([None, 0.25]),
        background=st.booleans(),
    )
    def set(self, name: str, aliases: tuple[str, ...], threshold: float | None, background: bool) -> None:
        settings = {"aliases": aliases, "threshold": threshold, "background": background}
        self.refused(lambda: set_class(self.bank, name, **settings), self.model.set(name, **settings))

    @rule(name=NAMES, labels=LABELS, only=st.booleans())
    def photos(self, name: str, labels: list[str], only: bool) -> None:
        one = self.model.any(name)
        if one is not None:
            for other in self.model.classes:  # a photo teaches one class
                if other is not one:
                    other["photos"] = [label for label in other["photos"] if label not in labels]
            one["photos"] += [label for label in labels if label not in one["photos"]]
            one["only"] = one["only"] or only
        sets = {name: photo_set(*labels, photos_only=only)}
        self.refused(lambda: add_photos(self.bank, sets), one is not None)

    @rule(name=NAMES, labels=LABELS)
    def forget(self, name: str, labels: list[str]) -> None:
        """Forgotten photos leave all earlier steps too; of the file, unless another class has them."""
        one = self.model.any(name)
        fits = one is not None and set(labels) <= set(one["photos"])
        if one is not None and fits:
            for state in [*self.states, self.model]:
                for each in state.classes:  # a photo may have moved here from any of them
                    state.forget(each["id"], labels)
        self.refused(lambda: forget_photos(self.bank, name, photo_set(*labels).digests), fits)
        if fits:
            self.bank.save(self.file)
            data = self.file.read_bytes()
            for label in labels:
                assert photo_set(label).digests[0] not in data
                assert unit_row(label).tobytes() not in data

    @rule(name=NAMES, only=st.booleans())
    def only(self, name: str, only: bool) -> None:
        one = self.model.any(name)
        if one is not None:
            one["only"] = only
        self.refused(lambda: set_class(self.bank, name, photos_only=only), one is not None)

    @rule(word=st.sampled_from([None, "u", "v"]))
    def fit(self, word: str | None) -> None:
        self.model.model = word
        self.done(fit(self.bank, MODELS[word] if word else {}), record="@model")

    @rule(unknown=st.sampled_from([None, 0.0, 0.25]))
    def unknown_threshold(self, unknown: float | None) -> None:
        self.model.unknown = unknown
        self.done(set_unknown_threshold(self.bank, unknown))

    @rule(sums=st.dictionaries(NAMES, st.sampled_from("st"), max_size=3), photos=st.integers(1, 2))
    def learn(self, sums: dict[str, str], photos: int) -> None:
        if self.model.learn(sums, photos):
            self.done(learn(self.bank, learning(self.bank, sums, photos)), record="@learned")

    @rule()
    def unlearn(self) -> None:
        self.model.learn({}, 0)
        self.done(learn(self.bank, learning(self.bank, {}, 0)), record="@learned")

    @rule(count=st.sampled_from([1, 3, 64]))
    def many_steps(self, count: int) -> None:
        """After so many the first are folded, and the state is the same."""
        for number in range(count if self.model.classes else 0):
            one = self.model.classes[0]
            one["threshold"] = number / 100 if one["threshold"] is None or number else None
            self.done(set_class(self.bank, one["name"], threshold=one["threshold"]))

    @precondition(lambda self: any(not one["background"] for one in self.model.classes))
    @rule()
    def carry(self) -> None:
        """To an encoder that embeds names and images otherwise, or back."""
        other = {"x": "y", "y": "x"}[self.model.encoder]
        if self.on_base:
            return  # test_carry.py has bases
        bundled = ClassBank(other * 64, DIM, images=Images(other))
        bank, _ = carry(self.bank, bundled, lambda texts: unit_rows(embedded(other, each) for each in texts))
        self.model.carry(other)
        self.states.append(copy.deepcopy(self.model))
        self.begun, self.line = len(self.states) - 1, []
        self.bank, self.begun_at_home = bank, False

    @rule(back=st.integers(0, 12) | st.just(70))
    def rollback(self, back: int) -> None:
        to = len(self.states) - 1 - back
        target = to
        while target in self.back_to:
            target = self.back_to[target]
        if target not in [self.begun, *(n for n, _ in self.line)]:
            with pytest.raises(InputError):
                rollback(self.bank, to)
            return
        bank = rollback(self.bank, to, by="a test")
        left = [pair for pair in self.line if pair[0] <= target]
        gone = [n for n, _ in self.line if n > target]
        self.model = copy.deepcopy(self.states[target])
        self.model.made = max(state.made for state in self.states)
        assert (bank is self.bank) == (not gone)
        if gone:
            listed = ", ".join(map(str, reversed(gone)))
            assert bank.history[-1].summary.startswith(f"took back step{'s'[: len(gone) > 1]} {listed}; as"[:500])
            self.states.append(copy.deepcopy(self.model))
            self.back_to[len(self.states) - 1] = target
            self.line = left
        self.bank = bank

    @precondition(lambda self: len(self.states) > 1)
    @rule()
    def save_and_load(self) -> None:
        self.bank.save(self.file)
        bank = ClassBank.load(self.file, base=self.base)
        assert (content(bank), bank.content_digest) == (content(self.bank), self.bank.content_digest)
        before, after = ([dataclasses.replace(step, puts=None) for step in one.history] for one in (self.bank, bank))
        assert [vars(step) for step in before] == [vars(step) for step in after]
        self.bank = bank

    @rule()
    def give_away(self) -> None:
        self.bank.settled().save(self.file)
        given = ClassBank.load(self.file).shared(self.file)
        assert [vars(step) for step in given.history] == []
        assert (given.names, given.embeddings.tobytes()) == (self.bank.names, self.bank.embeddings.tobytes())
        assert (fitted(given), learned(given)) == (fitted(self.bank), learned(self.bank))
        assert given.unknown_threshold == self.model.unknown
        assert all(len(one.rows) == 0 for one in given.photos.values())

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "states"):
            return
        bank, classes = self.bank, self.model.classes
        assert bank.unknown_threshold == self.model.unknown
        assert list(bank.names) == [one["name"] for one in classes]
        assert bank.log.last == len(self.states) - 1
        np.testing.assert_array_equal(bank.embeddings, unit_rows([one["row"] for one in classes]))
        for position, one in enumerate(classes):
            entry, photos = bank.entry(one["name"]), bank.photos_of(one["name"])
            stated = (entry.phrases, entry.aliases, entry.background, entry.threshold)
            assert stated == tuple(one[field] for field in ("phrases", "aliases", "background", "threshold"))
            assert (photos.digest_set, photos.photos_only) == (photo_set(*one["photos"]).digest_set, one["only"])
            assert len(photos.rows) == len(one["photos"])
            if one["photos"]:
                total = unit_rows(one["photos"]).astype(np.float64).sum(axis=0)
                np.testing.assert_allclose(photos.total, total, atol=1e-12)
            assert {bank.lookup.get(text) for text in (one["name"], *one["aliases"])} == {position}
        flags = [one["background"] for one in classes]
        assert (None if bank.background is None else bank.background.tolist()) == (flags if any(flags) else None)
        thresholds = [np.nan if one["threshold"] is None else one["threshold"] for one in classes]
        assert (bank.thresholds is None) == np.isnan(thresholds).all()
        if bank.thresholds is not None:
            np.testing.assert_array_equal(bank.thresholds, np.float32(thresholds))
        assert set(bank.photos) == {one["name"] for one in classes if one["photos"] or one["only"]}
        expected = MODELS[self.model.model] if self.model.model else {}
        assert (fitted(bank) or {}) == {name: (one.dtype.str, one.tolist()) for name, one in sorted(expected.items())}
        if self.model.learned is None:
            assert bank.learned is None
        else:
            sums = {c["name"]: ((2 * unit_row(c["sum"][0])).tolist(), 2.5 + c["sum"][1]) for c in classes if c["sum"]}
            stated = (sums, (unit_row("translation") / 8).tolist(), {"temperature": 1.5}, self.model.learned["photos"])
            assert learned(bank) == (*stated, self.model.stale)
        if self.begun_at_home:
            self.digest_is_of_the_content()

    def digest_is_of_the_content(self) -> None:
        """States with the same content have the same digest, whatever led to them, and others another one."""
        fields = ("of_base", "name", "row", "only", "sum")
        identity = [[one[field] for field in fields] + sorted(one["photos"]) for one in self.model.classes]
        if not self.on_base:
            identity = [one[1:] for one in identity]
        rest = None
        if self.model.learned:  # a removed class is no content of what was learned
            ids = {key for key, _ in self.model.rows}
            classes = [row for row in self.model.learned["classes"] if row[0] in ids]
            rest = (self.model.learned | {"classes": classes}, self.model.stale)
        text = repr([identity, self.model.model, rest])
        digest = self.bank.content_digest
        assert self.digests.setdefault(text, digest) == digest
        assert len(set(self.digests.values())) == len(self.digests)

    def teardown(self) -> None:
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(300), stateful_step_count=16)
