"""Any sequence of changes against a model in plain dictionaries; what was saved, folded or undone against replays."""

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
from sar_infer.bank.log import UNDO_STEPS, Add, applied, folded, replay
from support.banks import DIM, content, example_bank, fitted, learned, learning, photo_set, unit_row, unit_rows
from support.examples import examples

from sar_infer.bank import (
    ClassBank,
    ClassInfo,
    Learn,
    add,
    amend,
    fit,
    learn,
    merge,
    remove,
    remove_photos,
    rename,
    rollback,
    set_photos_only,
)
from sar_infer.errors import BankError, ClassNameError, InputError

NAMES = st.sampled_from([*"abcdef", "A", "B c", "b  C", "日本"])
ALIASES = st.sampled_from(["x", "y", "a", "Y"])
STATISTICS = {
    word: {"precision": np.outer(unit_row(word), unit_row(word)), "slope": np.array(0.5), "counts": np.arange(3)}
    for word in "uv"
}
FITTED = {word: fitted(fit(example_bank(), tensors)) for word, tensors in STATISTICS.items()}
LABELS = st.lists(st.sampled_from("pqrst"), unique=True, min_size=1, max_size=3)
Class = dict[str, Any]


def key(name: str) -> str:
    return " ".join(name.split()).lower()


class Model:
    """The classes of a bank as a list of dictionaries."""

    def __init__(self, names: str) -> None:
        self.statistics: str | None = None
        self.learned: dict[str, Any] | None = None
        self.classes: list[Class] = [self.fresh(name, name, added=False) for name in names]

    @staticmethod
    def fresh(name: str, row: str, *, added: bool = True) -> Class:
        plain = {"phrases": (), "aliases": (), "background": False, "threshold": None}
        of_base = {"base": not added, "added": added}  # a class that was removed and comes again is none of the base's
        return {"name": name, "row": row, "photos": [], "only": False, "sum": None} | of_base | plain

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
            if had is None or had["row"] != row:
                self.outdate()
            if had is None:
                self.classes.append(self.fresh(name, row))
            elif had["row"] != row or had["phrases"]:
                had.update(added=True, row=row, phrases=())
        return True

    def outdate(self) -> None:
        if self.learned is not None:
            self.learned["stale"] = True

    def learn(self, sums: dict[str, str], photos: int) -> bool:
        classes = [self.any(name) for name in sums]
        if None in classes or any(classes.count(one) > 1 for one in classes):
            return False
        self.learned = {"photos": photos, "stale": False} if photos else None
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

    def amend(self, name: str, aliases: tuple[str, ...], threshold: float | None, background: bool) -> bool:
        one = self.any(name)
        if one is None or len({key(alias) for alias in aliases}) < len(aliases):
            return False
        if any(self.find(alias) or self.alias(alias) not in (None, one) for alias in aliases):
            return False
        one.update(aliases=aliases, threshold=threshold, background=background)
        return True


class Machine(RuleBasedStateMachine):
    """A bank on a base and its model, which saving, loading and folding make no difference to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "b.safetensors")
        self.model = Model("abc")
        self.bank = example_bank("abc")
        self.digests: dict[str, str] = {}

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        """Begin on a bundle's bank, or on rows of its own."""
        if shared:
            path = Path(self.folder.name, "base.safetensors")
            self.bank.save(path)
            self.bank = self.bank.shared(path)
        self.states = [copy.deepcopy(vars(self.model))]
        self.lines = {0: [0]}

    def done(self, bank: ClassBank, accepted: bool = True) -> None:
        """Take up the bank after an edit, and remember its state if there was a change."""
        assert accepted
        if bank is not self.bank:
            self.lines[len(self.states)] = [*self.lines[len(self.states) - 1], len(self.states)]
            self.states.append(copy.deepcopy(vars(self.model)))
        self.bank = bank

    def refused(self, edit: Any, accepted: bool) -> None:
        if accepted:
            self.done(edit())
            return
        with pytest.raises((BankError, ClassNameError, InputError)):
            edit()
        self.restore(-1)

    def restore(self, number: int) -> None:
        vars(self.model).update(copy.deepcopy(self.states[number]))

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
    def amend(self, name: str, aliases: tuple[str, ...], threshold: float | None, background: bool) -> None:
        info = ClassInfo(aliases=aliases, threshold=threshold, background=background)
        self.refused(lambda: amend(self.bank, {name: info}), self.model.amend(name, aliases, threshold, background))

    @rule(name=NAMES, labels=LABELS, only=st.booleans())
    def photos(self, name: str, labels: list[str], only: bool) -> None:
        one = self.model.any(name)
        if one is not None:
            one["photos"] += [label for label in labels if label not in one["photos"]]
            one["only"] = one["only"] or only
        sets = {name: photo_set(*labels, photos_only=only)}
        self.refused(lambda: add(self.bank, [], unit_rows([]), photos=sets), one is not None)

    @rule(name=NAMES, labels=LABELS)
    def forget(self, name: str, labels: list[str]) -> None:
        one = self.model.any(name)
        fits = one is not None and set(labels) <= set(one["photos"])
        if one is not None and fits:
            one["photos"] = [label for label in one["photos"] if label not in labels]
        self.refused(lambda: remove_photos(self.bank, name, photo_set(*labels).digest_set), fits)

    @rule(name=NAMES, only=st.booleans())
    def only(self, name: str, only: bool) -> None:
        one = self.model.any(name)
        if one is not None:
            one["only"] = only
        self.refused(lambda: set_photos_only(self.bank, name, photos_only=only), one is not None)

    @rule(word=st.sampled_from([None, "u", "v"]))
    def fit(self, word: str | None) -> None:
        if word or self.model.statistics:
            self.model.outdate()
        self.model.statistics = word
        self.done(fit(self.bank, STATISTICS[word] if word else {}))

    @rule(sums=st.dictionaries(NAMES, st.sampled_from("st"), max_size=3), photos=st.integers(1, 2))
    def learn(self, sums: dict[str, str], photos: int) -> None:
        accepted = self.model.learn(sums, photos)
        self.refused(lambda: learn(self.bank, learning(sums, photos)), accepted)

    @rule()
    def unlearn(self) -> None:
        self.model.learn({}, 0)
        self.done(learn(self.bank, Learn.nothing(DIM)))

    @rule(
        names=st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=2),
        labels=st.just([]) | LABELS,
        only=st.booleans(),
    )
    def merge_taking(self, names: dict[str, int], labels: list[str], only: bool) -> None:
        rows = {name: f"{key(name)}{number}" if number else name for name, number in names.items()}
        if len({key(name) for name in rows}) < len(rows) or any(self.model.alias(name) for name in rows):
            return  # names that differ in case alone, and aliases that give way, have tests of their own
        for name, row in rows.items():
            had = self.model.find(name)
            if had is None:
                self.model.add({name: row})
            elif had["row"] != row:
                self.model.outdate()
                had.update(row=row, phrases=(), added=True, threshold=None, background=False)
            else:
                had.update(background=False)  # the other's flag is taken; its missing threshold is no choice
        photos = {name: photo_set(*labels, photos_only=only) for name in list(rows)[:1]}
        for one in (self.model.find(name) for name in photos if labels or only):
            assert one is not None
            one["photos"] += [label for label in labels if label not in one["photos"]]
            one["only"] = only
        other = ClassBank([*rows], unit_rows(rows.values()), self.bank.encoder_digest, photos=photos)
        other = fit(learn(other, learning(dict.fromkeys(rows, "theirs"))), STATISTICS["u"])  # stay behind
        self.done(merge(self.bank, other, "take"))

    @rule(to=st.integers(0, 12))
    def rollback(self, to: int) -> None:
        latest = len(self.states) - 1
        line = self.lines.get(to)
        if line is None or not set(line) <= {*self.lines[latest]}:
            with pytest.raises(InputError):
                rollback(self.bank, to)
            return
        bank = rollback(self.bank, to)
        self.restore(to)
        if bank is not self.bank:
            self.lines[len(self.states)] = line
            self.states.append(copy.deepcopy(vars(self.model)))
        self.bank = bank

    @precondition(lambda self: len(self.states) > 1)
    @rule(again=st.booleans())
    def save_and_load(self, again: bool) -> None:
        self.bank.save(self.file)
        bank = ClassBank.load(self.file, previous=self.bank if again else None)
        assert (content(bank), bank.content_digest) == (content(self.bank), self.bank.content_digest)
        before, after = ([dataclasses.replace(step, changes=None) for step in one.history] for one in (self.bank, bank))
        assert [vars(step) for step in before] == [vars(step) for step in after]
        self.bank = bank

    @rule()
    def fold(self) -> None:
        """Fold all steps, or give the bank away: the state is the same."""
        log = folded(self.bank.base, self.bank.log, 0)
        state = ClassBank.of(replay(self.bank.base, log), log)
        assert (content(state), state.content_digest) == (content(self.bank), self.bank.content_digest)
        assert not any(step.can_undo for step in log.steps)
        changes = log.checkpoint.changes or () if log.checkpoint else ()
        with_rows = {name for change in changes if isinstance(change, Add) for name in change.names}
        assert with_rows == {one["name"] for one in self.model.classes if one["added"]}
        self.bank.settled().save(self.file)
        frozen = ClassBank.load(self.file)
        assert (tuple(frozen.names), frozen.info) == (tuple(self.bank.names), self.bank.info)
        assert (fitted(frozen), learned(frozen)) == (fitted(self.bank), learned(self.bank))

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "states"):
            return
        bank, classes = self.bank, self.model.classes
        assert list(bank.names) == [one["name"] for one in classes]
        np.testing.assert_array_equal(bank.embeddings, unit_rows([one["row"] for one in classes]))
        for position, one in enumerate(classes):
            info, photos = bank.info_of(one["name"]), bank.photos_of(one["name"])
            stated = (info.phrases, info.aliases, info.background, info.threshold, info.added is not None)
            assert stated == tuple(one[field] for field in ("phrases", "aliases", "background", "threshold", "added"))
            assert (photos.digest_set, photos.photos_only) == (photo_set(*one["photos"]).digest_set, one["only"])
            if one["photos"]:
                mean = unit_rows(one["photos"]).astype(np.float64).mean(axis=0)
                np.testing.assert_allclose(photos.mean, mean, atol=1e-12)
            assert {bank.lookup.get(text) for text in (one["name"], *one["aliases"])} == {position}
        flags = {one["name"] for one in classes if one["background"]}
        assert bank.background_names == flags
        assert (bank.background is None) == (not flags)
        assert bank.background is None or bank.background.tolist() == [one["background"] for one in classes]
        thresholds = [np.nan if one["threshold"] is None else one["threshold"] for one in classes]
        assert (bank.thresholds is None) == np.isnan(thresholds).all()
        if bank.thresholds is not None:
            np.testing.assert_array_equal(bank.thresholds, np.float32(thresholds))
        assert set(bank.photos) == {one["name"] for one in classes if one["photos"] or one["only"]}
        assert bank.added_count == sum(one["added"] for one in classes)
        assert fitted(bank) == (self.model.statistics and FITTED[self.model.statistics])
        if self.model.learned is None:
            assert bank.learned is None
        else:
            sums = {
                one["name"]: ((2 * unit_row(one["sum"][0])).tolist(), 2.5 + one["sum"][1])
                for one in classes
                if one["sum"]
            }
            stated = (sums, (unit_row("translation") / 8).tolist(), {"temperature": 1.5}, *self.model.learned.values())
            assert learned(bank) == stated
        identity = repr(
            [
                [
                    (one["base"], one["name"], one["row"], sorted(one["photos"]), one["only"], one["sum"])
                    for one in classes
                ],
                self.model.statistics,
                self.model.learned,
            ]
        )
        assert self.digests.setdefault(identity, bank.content_digest) == bank.content_digest
        assert len(set(self.digests.values())) == len(self.digests)

    def teardown(self) -> None:
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(400), stateful_step_count=14)


def grown(steps: int) -> ClassBank:
    bank = example_bank("a")
    for number in range(steps):
        bank = add(bank, ["a"], unit_rows([f"{number}"]))
    return bank


def test_undoing_is_kept_for_the_latest_steps() -> None:
    assert UNDO_STEPS == 64  # as docs/banks.md says
    bank = grown(UNDO_STEPS + 3)
    assert [step.n for step in bank.history if not step.can_undo] == [1, 2, 3]
    np.testing.assert_array_equal(rollback(bank, 3).embeddings, unit_rows(["2"]))
    with pytest.raises(InputError, match="step 3"):
        rollback(bank, 2)


def test_the_rollback_says_what_it_undid() -> None:
    back = rollback(grown(3), 1, by="a test")
    assert [step.summary for step in back.history[3:]] == ["took back steps 3, 2; as after step 1"]
    assert back.history[3].by == "a test"
    assert rollback(grown(3), 2).history[-1].summary == "took back step 3; as after step 2"
    assert rollback(back, 4) is back
    for to, message in ((2, "step 2 .* step 4"), (-1, "step -1;"), (5, "step 5;")):
        with pytest.raises(InputError, match=message):
            rollback(back, to)


def test_undone_steps_keep_their_text_and_lose_their_rows(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(500)]
    bank = add(example_bank("abc"), names, unit_rows(names))
    bank.save(tmp_path / "b")
    before = (tmp_path / "b").stat().st_size
    rollback(bank, 0).save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < before - 500 * 4 * 4
    assert ClassBank.load(tmp_path / "b").history[0].summary == "added 500"


def test_names_that_change_places_are_folded_too() -> None:
    bank = rename(rename(rename(example_bank("ab"), "a", "t"), "b", "a"), "t", "b")
    assert list(bank.names) == ["b", "a"]
    log = folded(bank.base, bank.log, 0)
    state = ClassBank.of(replay(bank.base, log), log)
    assert content(state) == content(bank)


def test_a_change_of_one_class_shares_the_rows_of_all(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(1000)]
    base = ClassBank(names, unit_rows(names), "a" * 64)
    base.save(tmp_path / "base.safetensors")
    base = base.shared(tmp_path / "base.safetensors")
    bank = remove(add(base, ["owl"], unit_row("owl")[np.newaxis]), ["n3"])
    assert bank.table.blocks[0] is base.table.blocks[0]
    bank.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").stat().st_size < 4000
    again = ClassBank.load(tmp_path / "b.safetensors", base=base)
    assert again.table.blocks[0] is base.table.blocks[0]
    assert content(again) == content(bank)


def test_a_change_that_names_a_class_twice_is_made_once() -> None:
    bank = example_bank("ab")
    change = Add(("a", " A"), unit_rows(["new", "a"]))
    state = applied(bank, [change])
    assert list(state.names) == ["a", "b"]
    np.testing.assert_array_equal(state.embeddings, unit_rows(["a", "b"]))
