from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sar_infer.bank.history import UNDO_STEPS
from sar_infer.bank.undo import Before, Undo
from support.banks import content, example_bank, photo_set, unit_rows

from sar_infer.bank import (
    ClassBank,
    ClassInfo,
    add,
    amend,
    merge,
    remove,
    remove_photos,
    rename,
    rollback,
    set_photos_only,
)
from sar_infer.bank.photos import MOST_ROWS
from sar_infer.errors import BankError, ClassNameError, InputError

NAMES = st.sampled_from([*"abcdefghij", "A", "B c", "b  C", "日本"])
INFO = st.builds(
    ClassInfo,
    phrases=st.sampled_from([(), ("one",), ("one", "two")]),
    aliases=st.lists(st.sampled_from(["x", "y", "a"]), unique=True, max_size=2).map(tuple),
    background=st.booleans(),
    threshold=st.sampled_from([None, 0.25]),
)
PHOTOS = st.lists(st.sampled_from("pqrstu"), max_size=4) | st.just([f"p{number}" for number in range(MOST_ROWS + 3)])
EDIT = st.one_of(
    st.tuples(st.just("add"), st.dictionaries(NAMES, st.tuples(st.integers(0, 3), st.none() | INFO), max_size=4)),
    st.tuples(st.just("merge"), st.dictionaries(NAMES, st.tuples(st.integers(0, 3), st.none() | INFO), max_size=3)),
    st.tuples(st.just("photos"), st.dictionaries(NAMES, st.tuples(PHOTOS, st.booleans()), max_size=3)),
    st.tuples(st.just("merge photos"), st.dictionaries(NAMES, st.tuples(PHOTOS, st.booleans()), max_size=3)),
    st.tuples(st.just("remove photos"), st.tuples(NAMES, PHOTOS)),
    st.tuples(st.just("photos_only"), st.tuples(NAMES, st.booleans())),
    st.tuples(st.just("remove"), st.lists(NAMES, max_size=3)),
    st.tuples(st.just("rename"), st.tuples(NAMES, NAMES)),
    st.tuples(st.just("amend"), st.dictionaries(NAMES, INFO, max_size=2)),
    st.tuples(st.just("rollback"), st.integers(0, 8)),
)


def edited(bank: ClassBank, kind: str, given) -> ClassBank:
    if kind in ("add", "merge"):
        rows = unit_rows(f"{name}{number}" for name, (number, _) in given.items())
        info = {name: item for name, (_, item) in given.items() if item}
        if kind == "add":
            return add(bank, list(given), rows, info)
        return merge(bank, ClassBank(tuple(given), rows, bank.encoder_digest, info=info), "take")
    if "photos" in kind or kind == "photos_only":
        return with_photos(bank, kind, given)
    if kind == "rename":
        return rename(bank, *given)
    return {"remove": remove, "amend": amend, "rollback": rollback}[kind](bank, given)


def with_photos(bank: ClassBank, kind: str, given) -> ClassBank:
    if kind == "photos_only":
        return set_photos_only(bank, given[0], photos_only=given[1])
    if kind == "remove photos":
        return remove_photos(bank, given[0], sorted(photo_set(*given[1]).known))
    photos = {name: photo_set(*labels, photos_only=photos_only) for name, (labels, photos_only) in given.items()}
    new = [name for name in given if bank.lookup.name(name) is None]
    if kind == "photos":
        return add(bank, new, unit_rows(new), photos=photos)
    photos = {name: found for name, found in photos.items() if found}
    return merge(bank, ClassBank(tuple(given), unit_rows(given), bank.encoder_digest, photos=photos), "take")


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(EDIT, max_size=8), stored=st.booleans())
@example(edits=[("rename", ("a", "d")), ("rename", ("d", "a"))], stored=False)
def test_every_earlier_bank_comes_back(tmp_path_factory: pytest.TempPathFactory, edits: list, stored: bool) -> None:
    """Exactly, whatever was done, also from the file alone; or the refusal says why not."""
    bank = example_bank("abc", {"a": ClassInfo(aliases=("first",))})
    states = [bank]
    for kind, given_ in edits:
        try:
            bank = edited(bank, kind, given_)
        except (BankError, ClassNameError, InputError):
            continue
        if bank is not states[-1]:
            states.append(bank)
    assert [step.n for step in bank.history] == list(range(1, len(states)))
    if stored:
        file = tmp_path_factory.getbasetemp() / "undo.safetensors"
        bank.save(file)
        bank = ClassBank.load(file)
        assert (content(bank), bank.history) == (content(states[-1]), states[-1].history)
        assert bank.content_digest == states[-1].content_digest
    for to, state in enumerate(states):
        try:
            back = rollback(bank, to)
        except InputError as error:
            assert "was taken back by step" in str(error)
            assert any(step.to is not None and step.to < to < step.n for step in bank.history)
            continue
        assert (content(back), back.content_digest) == (content(state), state.content_digest)
        if back is not bank:  # where a rollback led there already, nothing is left to take back
            assert (back.history[-1].action, back.history[-1].to) == ("rollback", to)
            assert content(rollback(back, 0)) == content(states[0])
    assert content(rollback(bank, 0)) == content(states[0])


def grown(steps: int) -> ClassBank:
    bank = example_bank("a")
    for number in range(steps):
        bank = add(bank, ["a"], unit_rows([f"{number}"]))
    return bank


def test_undoing_is_kept_for_the_latest_steps() -> None:
    assert UNDO_STEPS == 64  # as docs/banks.md says
    bank = grown(UNDO_STEPS + 3)
    assert len(bank.retired) == UNDO_STEPS
    assert [step.n for step in bank.history if step.undo is None] == [1, 2, 3]
    np.testing.assert_array_equal(rollback(bank, 3).embeddings, unit_rows(["2"]))
    with pytest.raises(InputError, match="step 3"):
        rollback(bank, 2)


@pytest.mark.parametrize("to", [-1, 3])
def test_steps_that_never_were(to: int) -> None:
    with pytest.raises(InputError, match=f"step {to};"):
        rollback(grown(2), to)


def test_the_rollback_says_what_it_undid() -> None:
    back = rollback(grown(3), 1, by="a test")
    assert [step.summary for step in back.history[3:]] == ["took back steps 3, 2; as after step 1"]
    assert (back.history[3].by, len(back.retired)) == ("a test", 1)
    assert rollback(grown(3), 2).history[-1].summary == "took back step 3; as after step 2"
    assert rollback(back, 4) is back
    with pytest.raises(InputError, match="step 2 .* step 4"):
        rollback(back, 2)


@pytest.mark.parametrize("position", [-1, 3, 1])
def test_a_stack_that_does_not_fit_is_refused(position: int) -> None:
    bank = remove(example_bank("abc"), ["a", "b"])
    broken = dataclasses.replace(bank.retired, positions=np.array([position, 1]))
    with pytest.raises(BankError, match="does not fit"):
        rollback(dataclasses.replace(bank, stack=broken), 0)


def test_a_history_that_does_not_account_for_its_rows(tmp_path: Path) -> None:
    bank = remove(example_bank("abc"), ["a", "b"])
    for changes in ({"stack": None}, {"history": ()}, {"history": bank.history * 2}):
        with pytest.raises(BankError, match="history"):
            dataclasses.replace(bank, **changes)


@pytest.mark.parametrize("rows", [((0, 4),), ((-1, 1),), ((1, 1),), ((0, 2), (0, 2))])
def test_info_of_rows_that_never_were(rows: tuple[tuple[int, int], ...]) -> None:
    bank = amend(example_bank("abc"), {"a": ClassInfo(threshold=0.5)})
    broken = dataclasses.replace(bank.history[0], undo=Undo(info=(Before(rows, ClassInfo()),)))
    with pytest.raises(BankError, match="does not fit"):
        rollback(dataclasses.replace(bank, history=(broken,)), 0)


def test_what_undoing_a_large_step_takes_is_short(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(5000)]
    bank = add(example_bank("abc"), names, unit_rows(names))
    remove(bank, names).save(tmp_path / "b")
    assert int.from_bytes((tmp_path / "b").read_bytes()[:8], "little") < 5000
    assert rollback(ClassBank.load(tmp_path / "b"), 1).info == bank.info
