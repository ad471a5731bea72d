from __future__ import annotations

import inspect
from collections.abc import Iterator

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
