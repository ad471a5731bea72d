from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sar_infer.bank import ClassBank
from sar_infer.class_set import ClassSet, build_class_set, phrases_by_name, with_head
from sar_infer.errors import ClassNameError, InputError
from sar_infer.head import ClassHead

BANK = ClassBank(("Cat", "dog", "fox"), np.eye(3, dtype=np.float32), "e")


class Embed:
    """Gives -1 for the first group of phrases, -2 for the second, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, groups: Sequence[tuple[str, ...]]) -> np.ndarray:
        self.asked += groups
        return -np.arange(1, len(groups) + 1, dtype=np.float32)[:, None] * np.ones(3, np.float32)


def built(classes, only: bool = False):
    embed = Embed()
    result = build_class_set(BANK, phrases_by_name(classes), only, embed)
    rows = [int(row @ [1, 2, 3]) if row.max() > 0 else int(row[0]) for row in result.embeddings]
    return list(zip(result.names, result.sources, rows, strict=True)), embed.asked


def test_the_bank_alone_encodes_nothing() -> None:
    assert built(None) == ([("Cat", "bank", 1), ("dog", "bank", 2), ("fox", "bank", 3)], [])


def test_new_names_follow_the_bank() -> None:
    classes, asked = built(["owl", "emu"])
    assert classes[3:] == [("owl", "extended", -1), ("emu", "extended", -2)]
    assert asked == [("owl",), ("emu",)]


def test_a_name_of_the_bank_keeps_its_row_and_stands_once() -> None:
    assert built(["dog", "owl"]) == (
        [("Cat", "bank", 1), ("fox", "bank", 3), ("dog", "bank", 2), ("owl", "extended", -1)],
        [("owl",)],
    )


def test_case_and_space_make_no_other_name() -> None:
    assert built([" cat"], only=True) == ([(" cat", "bank", 1)], [])


def test_only_leaves_the_rest_of_the_bank_out() -> None:
    assert built(["fox", "owl"], only=True) == ([("fox", "bank", 3), ("owl", "extended", -1)], [("owl",)])


def test_phrases_of_its_own_replace_the_banks_row() -> None:
    classes, asked = built({"dog": ["dog", "hound"], "fox": "fox"})
    assert classes == [("Cat", "bank", 1), ("dog", "extended", -1), ("fox", "bank", 3)]
    assert asked == [("dog", "hound")]


def test_repeated_names_count_once() -> None:
    assert phrases_by_name(["owl", "Owl ", "emu"]) == {"owl": ("owl",), "emu": ("emu",)}


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("owl", InputError, "got the string 'owl'"),
        ({"owl": []}, ClassNameError, "'owl' has no phrases"),
        ([5], ClassNameError, "expected text, got 5"),
        ({"owl": [5]}, ClassNameError, "expected text, got 5"),
    ],
)
def test_wrong_classes(classes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        phrases_by_name(classes)


def test_no_class_at_all() -> None:
    with pytest.raises(InputError, match="no class to choose from"):
        built([], only=True)
    empty = ClassBank((), np.empty((0, 3), np.float32), "e")
    with pytest.raises(InputError, match="no class to choose from"):
        build_class_set(empty, {}, False, Embed())


HEAD = ClassHead(("fox", " cat"), np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([7, 8], np.float32), 0.5, "e")


def headed(classes, only: bool = True, bank: ClassBank = BANK) -> ClassSet:
    return with_head(build_class_set(bank, phrases_by_name(classes), only, Embed()), HEAD, BANK)


@pytest.mark.parametrize("names", [("Cat", "FOX"), ("fox ", "cat"), ("fox", "Cat", "fox")])
def test_exactly_the_classes_of_the_head_get_it_in_their_order(names: tuple[str, ...]) -> None:
    classes = headed(names)
    assert classes.branch == "head+text"
    assert classes.head is not None
    assert [name.lower().strip() for name in classes.head.names] == [name.lower().strip() for name in classes.names]
    by_name = dict(zip(HEAD.names, zip(HEAD.weight.tolist(), HEAD.bias.tolist(), strict=True), strict=True))
    for name, row, bias in zip(classes.head.names, classes.head.weight, classes.head.bias, strict=True):
        assert by_name[name] == (row.tolist(), bias)


@pytest.mark.parametrize(
    ("classes", "only"),
    [
        (None, False),
        (["fox"], True),
        (["fox", "dog"], True),
        (["fox", "cat", "dog"], True),
        (["fox", "cat", "owl"], True),
        (["fox", "owl"], True),
        ({"fox": "fox", "cat": ["cat", "kitten"]}, True),
        ({"fox": "red fox", "cat": "cat"}, True),
    ],
)
def test_any_other_classes_get_no_head(classes, only: bool) -> None:
    assert (headed(classes, only).head, headed(classes, only).branch) == (None, "text")


def test_another_bank_gets_the_head_only_with_the_same_rows() -> None:
    rows = np.eye(3, dtype=np.float32)
    same = ClassBank(("fox", "cat"), rows[[2, 0]], "e")
    assert headed(None, False, same).branch == "head+text"
    edited = ClassBank(("fox", "cat"), np.nextafter(rows[[2, 0]], np.float32(2)), "e")
    assert headed(None, False, edited).branch == "text"
    swapped = ClassBank(("cat", "fox"), rows[[2, 0]], "e")
    assert headed(None, False, swapped).branch == "text"


def test_without_a_head_nothing_changes() -> None:
    classes = build_class_set(BANK, {}, False, Embed())
    assert with_head(classes, None, BANK) is classes


def test_phrases_get_no_head_even_where_they_give_the_banks_row() -> None:
    given = phrases_by_name({"fox": ["fox", "fox"], "cat": "cat"})
    classes = build_class_set(BANK, given, True, lambda groups: BANK.embeddings[[2]])
    np.testing.assert_array_equal(classes.embeddings, BANK.embeddings[[2, 0]])
    assert with_head(classes, HEAD, BANK).branch == "text"
