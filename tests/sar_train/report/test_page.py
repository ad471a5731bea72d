"""The report: a self-contained page with tables and figures as files, and the committed ones in the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.disk import files_of_at_most
from support.results import result, sample, write

from sar_train.errors import ConfigError
from sar_train.report import page
from sar_train.report.results import ResultSet, read
from sar_train.report.tables import all_tables

ROOT = Path(__file__).parents[3]
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use"}
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """The elements of a page with their attributes; unbalanced ones fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def values(self, *names: str) -> list[str]:
        """Return the values of attributes."""
        return [attributes[name] or "" for _, attributes in self.elements for name in names if name in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    """Return a single run without new classes, history or time, the least there can be."""
    folder = tmp_path_factory.mktemp("small")
    write(folder, result(new=None, zero_shot=(50.0, None), protocol="few-shot", history=[], timing={}))
    return read(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    sample(folder)
    return page.write(read(folder), folder / "out", title="A & B <c>", command="sar-experiment report x")


def test_the_page_is_self_contained_and_its_links_lead_somewhere(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img"} & {
        tag for tag, _ in page.elements
    }
    addresses = page.values("src", "href", "srcset", "data", "action", "poster", "xlink:href")
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    identifiers = page.values("id")
    assert len(set(identifiers)) == len(identifiers)
    links = [address.removeprefix("#") for address in addresses]
    assert {*links, *page.values("aria-labelledby", "aria-describedby")} <= set(identifiers)
    assert text.count('<section aria-labelledby="') == len(re.findall(r'<li><a href="#', text))


def test_names_are_escaped_and_provenance_is_complete(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "<title>A &amp; B &lt;c&gt;</title>" in text
    assert "name 0 &amp; &lt;b&gt;" in text
    for words in ("12, 7 of them with SAR", "0.1.0 (c0de)", "sar-mini: ab12", "python 3.11.7", "report x</code>"):
        assert words in text
    shared = re.search(r"<dt>shared settings</dt><dd>(.*?)</dd>", text)
    assert shared and shared[1].startswith("backbone=sar-mini, epochs=10, ")
    assert "sar.weight=0.3, sar.tau=0.1" in shared[1]
    assert not re.search("shots=|coop|None", shared[1])
    assert "sar-experiment run RUN.toml" in text


def test_tables_and_figures_are_files_too_and_figures_name_their_methods(report: Path) -> None:
    assert {path.suffix for path in (report.parent / "tables").iterdir()} == {".csv", ".md", ".tex"}
    figures = sorted(path.stem.partition("-")[0] for path in (report.parent / "figures").iterdir())
    assert figures == ["base", "open", "shots"]
    for path in (report.parent / "figures").iterdir():
        with Image.open(path) as figure:
            assert min(figure.size) > 300
    drawings = re.findall(r"<svg.*?</svg>", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(drawings) == 3
    assert all(">CoOp<" in drawing and "with SAR" in drawing for drawing in drawings)


def test_what_a_reader_has_to_know_is_said_above_the_tables(tmp_path: Path) -> None:
    check = {"expected": {"base_accuracy": 70.0, "new_accuracy": 58.0}, "source": "there", "ok": False}
    write(tmp_path, result(zero_shot_check=check))
    write(tmp_path, result(dataset="dtd", settings={"allow_missing": True}, code={"version": "1", "digest": "other"}))
    (tmp_path / "x.json").write_text("{}")
    text = page.write(read(tmp_path), tmp_path / "out", title="t", command="c").read_text(encoding="utf-8")
    warnings = re.findall(r'<p class="warn">(.*?)</p>', text.partition("<section")[0])
    assert [re.sub(r"[:,].*", "", warning) for warning in warnings] == [
        "Zero-shot accuracy is below the known one on caltech101",
        "Not the published split and photos",
        "The runs were made by 2 states of the code.",
        "Left out",
    ]


def test_an_older_report_is_replaced_and_nothing_is_left_behind(small: ResultSet, tmp_path: Path) -> None:
    out = tmp_path / "report"
    page.write(small, out, title="one", command="x")
    (out / "tables" / "old.csv").write_text("")
    page.check_target(out)
    page.write(small, out, title="two", command="x")
    assert "two" in (out / "index.html").read_text(encoding="utf-8")
    assert not (out / "tables" / "old.csv").exists()
    with files_of_at_most(2 * (out / "index.html").stat().st_size // 3), pytest.raises(OSError, match="File too large"):
        page.write(small, out, title="three", command="x")
    assert "two" in (out / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("kind", ["file", "folder", "site", "report with notes"])
def test_nothing_else_is_replaced(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        page.check_target(out)
        mark = page.MARK if kind == "report with notes" else ""
        if kind != "folder":
            (out / "index.html").write_text(f"<html><head>{mark}</head></html>")
        if kind != "site":
            (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a report"):
        page.check_target(out)


@pytest.mark.parametrize(
    ("results", "folder"), [("default", "base-to-new"), ("few-shot", "few-shot"), ("pacs", "pacs")]
)
def test_committed_tables_are_made_from_committed_results(results: str, folder: str) -> None:
    report = ROOT / "docs" / "reports" / folder
    tables = all_tables(read(ROOT / "experiments" / "results" / results))
    made = {f"{table.key}.{ending}": form(table) for table in tables for ending, form in page.FORMATS.items()}
    assert made == {path.name: path.read_text(encoding="utf-8") for path in (report / "tables").iterdir()}
    text = (report / "index.html").read_text(encoding="utf-8")
    assert all(f'id="table-{table.key}"' in text for table in tables)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no browser to draw the page with")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "dark phone"])
def test_a_browser_draws_it(report: Path, tmp_path: Path, width: int, *, dark: bool) -> None:
    shot = tmp_path / "shot.png"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},3000", f"--screenshot={shot}",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []), report.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as shown:
        pixels = np.asarray(shown.convert("RGB")).astype(int)
    corner = pixels[2, 2]
    assert bool(corner.mean() < 60) is dark
    assert (pixels.max(2) - pixels.min(2) > 60).mean() > 0.002  # colours of figures
    edge = np.abs(pixels[:, -6:] - corner).sum(2)
    assert (edge > 60).mean() < 0.01  # nothing is cut off at the right
