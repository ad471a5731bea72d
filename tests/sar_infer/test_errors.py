from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from sar_infer import errors


def drawn(kind: type, depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        yield from drawn(child, depth + 1)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if "Error" in line and "raises" not in line]
    tree = [(line.index(name) // 4 - 1, name) for line in lines if (name := line.strip(" │├└─").split(" ")[0])]
    assert tree == list(drawn(errors.SarInferError))


def test_every_error_is_in_the_tree_and_says_when() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(kind, errors.SarInferError) and kind.__doc__ for kind in classes)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – text", "plain – text"),
        ("two\nlines\x1b[2J", r"two\nlines\x1b[2J"),
        ("lone \ud800 and \u202e", r"lone \ud800 and \u202e"),
        ("x" * 5000, "x" * 999 + "…"),
    ],
)
def test_a_message_is_one_printable_line_with_an_end(text: str, shown: str) -> None:
    assert str(errors.BundleError(text)) == errors.one_line(text) == shown
