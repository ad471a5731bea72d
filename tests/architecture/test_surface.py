"""What a package offers is what its ``__all__`` lists."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sar_infer", "sar_train")


def bound_names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module binds at its top, `if TYPE_CHECKING` included, and stdlib imports left out."""
    for node in body:
        match node:
            case ast.ImportFrom(module=module, names=names) if module and module.partition(".")[0] in PACKAGES:
                yield from (alias.asname or alias.name for alias in names)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=inner):
                yield from bound_names(inner)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_lists_exactly_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    public = {name for name in bound_names(tree.body) if not name.startswith("_")}
    listed = getattr(module, "__all__", [])
    assert set(listed) - {"__version__"} == public
    assert listed == sorted(listed)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_can_be_had(package: str) -> None:
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_packages_say_that_they_are_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []
