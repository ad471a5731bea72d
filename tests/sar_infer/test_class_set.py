from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sar_infer.bank import ClassBank
from sar_infer.class_set import build_class_set, phrases_by_name
from sar_infer.errors import ClassNameError, InputError

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
