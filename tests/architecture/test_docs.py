"""Documents keep up with the code."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sar_infer
from scripts import readme_commands

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "exports").rglob("*.md")])


def test_one_version_everywhere() -> None:
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"] == sar_infer.__version__


@pytest.mark.parametrize("kind", ["methods", "regularisers"])
def test_everything_registered_has_a_page_that_names_its_settings(kind: str) -> None:
    from sar_train import prompt_method, regulariser

    registry: Any = {"methods": prompt_method.methods, "regularisers": regulariser.regularisers}[kind]
    assert registry.entries
    for name, entry in registry.entries.items():
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        settings = [field.name for field in dataclasses.fields(entry.Config)]
        assert [setting for setting in settings if f"`{setting}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_command_shown_is_marked(page: Path) -> None:
    blocks = readme_commands.read(page)
    assert blocks
    assert [f"line {block.line}" for block in blocks if block.mark is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_place_is_left_open(page: Path) -> None:
    assert re.findall("⟦.*?⟧", page.read_text(encoding="utf-8")) == []
