"""The documentation site: built without a warning, complete, reachable, and self-contained."""

from __future__ import annotations

import dataclasses
import html.parser
import os
import re
import subprocess
import sys
import tomllib
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from support.browser import PHONE, WIDTHS

import sar_infer
from sar_infer.bundle.manifest import Manifest, Preprocess
from scripts import docs_commands

ROOT = Path(__file__).parents[2]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
LOADED = {"audio", "embed", "iframe", "img", "link", "script", "source", "video"}


class Parsed(html.parser.HTMLParser):
    """What a page links to, what it loads, its anchors, and the text of its paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attributes}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        for key in ("href", "src", "srcset"):
            if key in values:
                (self.loaded if tag in LOADED else self.links).append(values[key])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--site-dir",
        str(folder),
    ]  # --quiet would hide warnings from it
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Parsed]:
    """All pages by their path in the site."""
    return {
        path.relative_to(site).as_posix(): Parsed(path.read_text("utf-8"))
        for path in sorted(site.rglob("*.html"))
        if path.name != "404.html"
    }


def local(links: list[str]) -> list[tuple[str, str]]:
    """Path and anchor of the links that stay in the site."""
    parts = [urllib.parse.urlsplit(link) for link in links]
    return [(urllib.parse.unquote(part.path), part.fragment) for part in parts if not part.scheme and not part.netloc]


def test_every_page_can_be_reached(pages: dict[str, Parsed]) -> None:
    reached, ahead = set(), ["index.html"]
    while ahead:
        name = ahead.pop()
        reached.add(name)
        targets = {os.path.normpath(Path(name).parent / path) for path, _ in local(pages[name].links) if path}
        ahead += sorted(targets & pages.keys() - reached - {*ahead})
    assert len(reached) > 20
    assert pages.keys() - reached == set()


def test_links_lead_to_files_and_anchors(site: Path, pages: dict[str, Parsed]) -> None:
    broken = []
    for name, page in pages.items():
        for path, anchor in local(page.links + page.loaded):
            target = os.path.normpath(Path(name).parent / path) if path else name
            if target in pages:
                broken += [f"{name}: {path}#{anchor}"] * (anchor not in pages[target].anchors | {""})
            elif not (site / target).is_file():
                broken.append(f"{name}: {path}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Parsed]) -> None:
    loaded = {address for page in pages.values() for address in page.loaded}
    assert any(address.endswith(".css") for address in loaded)
    assert [address for address in loaded if re.match(r"\w+:|//", address) and not address.startswith("data:")] == []
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", styles) == []


def test_markup_that_was_not_understood(site: Path, pages: dict[str, Parsed]) -> None:
    """Marks that nobody filled in, lists that have run into their paragraph, colons that announce code elsewhere."""
    for name in pages:
        text = (site / name).read_text("utf-8")
        assert re.findall(r"<!-- generated:.*|::</p>|<p>[^<]*\n- .*|<p>[^<]*\n\|.*", text) == [], name


def test_every_public_name_is_described(pages: dict[str, Parsed]) -> None:
    anchors = set().union(*(page.anchors for page in pages.values()))
    names = [name for name in sar_infer.__all__ if name != "__version__"]
    assert [n for n in names if not anchors & {f"sar_infer.{n}", f"sar_infer.errors.{n}"}] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_has_every_option_and_example(site: Path, name: str) -> None:
    page = (site / "commands.html").read_text("utf-8")
    text = re.sub("<[^>]*>", "", html.unescape(page))
    blocks = html.unescape("".join(re.findall("<pre>.*?</pre>", page, re.DOTALL)))
    for command, context in docs_commands.commands(name):
        for option in command.get_params(context):
            if isinstance(option, click.Option) and not option.hidden:
                environment = [option.envvar] if isinstance(option.envvar, str) else []
                assert [flag for flag in (*option.opts, *environment) if flag not in text] == []
        examples = (command.epilog or "").partition("\b\n")[2].splitlines()[1:]
        assert [line for line in examples if line.strip() not in blocks] == []


def test_the_page_of_files_has_every_field_of_the_manifest(site: Path) -> None:
    page = (site / "files.html").read_text("utf-8")
    fields = {field.name for kind in (Manifest, Preprocess) for field in dataclasses.fields(kind)}
    assert {field for field in fields if f"<td><code>{field}</code></td>" not in page} == set()
    assert "3 of number" in page


@pytest.mark.parametrize("name", ["index", "commands", "serving"])
def test_pages_fit_a_phone(site: Path, open_page: Callable[..., tuple[Any, Any]], name: str) -> None:
    page, _ = open_page(site.as_uri(), f"/{name}.html", **PHONE)
    content, window = page.evaluate(WIDTHS)
    assert content == window == 390


def test_search_works_where_pages_are_opened_as_files(site: Path, open_page: Callable[..., tuple[Any, Any]]) -> None:
    page, _ = open_page(site.as_uri(), "/index.html")
    page.click("[data-md-component=search-query]")
    page.keyboard.type("class_model.safetensors")
    result = page.locator(".md-search-result__link[href*='files.html']").first
    result.wait_for(state="attached")
