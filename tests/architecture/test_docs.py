"""Documents keep up with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import sar_infer
from scripts import readme_commands

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "exports").rglob("*.md")])
_RUN = re.findall(r"readme_commands.py (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
RUN = [page for pattern in " ".join(_RUN).split() for page in sorted(ROOT.glob(pattern))]


def test_one_version_everywhere() -> None:
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert newest[1] == cited[1] == PROJECT["version"] == sar_infer.__version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_no_gap_is_left_open(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall("⟦.*?⟧", text) == []
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_command_shown_is_marked(page: Path) -> None:
    assert [f"line {block.line}" for block in readme_commands.read(page) if block.mark is None] == []


def test_what_is_marked_to_be_run_is_run() -> None:
    """By `make readme`; the server's pages have a test of their own."""
    marked = {page for page in PAGES if any(b.mark and b.mark["run"] for b in readme_commands.read(page))}
    assert ROOT / "README.md" in marked
    assert marked - {*RUN} == {ROOT / "docs" / f"{name}.md" for name in ("http", "operate", "serving")}


def test_every_test_that_security_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    assert [name for name in named if name not in defined] == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(path.name for path in folder.glob("0*.md"))
    assert re.findall(r"\]\((0[^)]*)\)", (folder / "index.md").read_text(encoding="utf-8")) == decisions


def test_charts_are_of_the_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from scripts import pictures

    monkeypatch.setattr(pictures, "ASSETS", tmp_path)
    pictures.main()
    charts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert len(charts) == len(pictures.CHARTS)
    assets = ROOT / "docs" / "assets"
    assert [name for name, text in charts.items() if (assets / name).read_text(encoding="utf-8") != text] == []


def test_every_picture_is_shown_with_its_meaning() -> None:
    shown = dict[str, str]()
    for page in PAGES:
        for meaning, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            shown[Path(path).name] = meaning
    pictures = {path.name for path in (ROOT / "docs" / "assets").iterdir() if path.suffix in (".svg", ".webp")}
    assert pictures - {*shown} == set()
    assert all(len(meaning) > 20 for meaning in shown.values())
