"""Generated pages and links of the documentation site, beyond the pages in ``docs/``; MkDocs calls it as a hook.

- Documents elsewhere in the repository become pages below ``project/``, and links to and from them lead there.
- ``<!-- generated: KIND NAME -->`` gives way to what the code itself says: ``command NAME`` to the help of a command,
  ``manifest`` to the manifest's schema, ``settings`` to those of a run, ``file PATH`` to a Python file of the
  repository. In the repository the mark is invisible; a line right below it is for readers there and gives way too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts import docs_commands, manifest_schema

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = "project/"
DOCUMENTS = (
    "*.md",
    "CITATION.cff",
    "NOTICE",
    "benchmarks/**/*.md",
    "benchmarks/results/*.txt",
    "examples/README.md",
    "experiments/README.md",
    "exports/README.md",
    "sar_train/clip/mini/MODEL_CARD.md",
)
_LINK = re.compile(r"(\]\()([^)\s#:]+)(?=[)\s#])")
_MARK = re.compile(r"^<!-- generated: (\w+) ?(\S*) -->(?:\n.+)?$", re.MULTILINE)


def _file(path: str) -> str:
    """Return a Python file as a block."""
    return f"```python\n{(ROOT / path).read_text(encoding='utf-8')}```"


_GENERATORS: dict[str, Callable[[str], str]] = {
    "command": docs_commands.page,
    "file": _file,
    "manifest": manifest_schema.page,
    "settings": docs_commands.settings,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie outside ``docs/``."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            name = ELSEWHERE + path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in the generated parts, and turn links of the repository into links of the site."""
    where = page.file.src_uri

    def relinked(link: re.Match[str]) -> str:
        target = posixpath.join(posixpath.dirname(_in_repository(where)), link[2])
        in_site = _in_site(posixpath.normpath(target))
        return link[1] + posixpath.relpath(in_site, posixpath.dirname(where)) if in_site in files.src_uris else link[0]

    filled = _MARK.sub(lambda mark: _GENERATORS[mark[1]](mark[2]), markdown)
    return _LINK.sub(relinked, filled)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Replace the two colons that announce an example in docstrings by one, or by none on a line of their own."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def _in_repository(uri: str) -> str:
    """Return the path in the repository of a file of the site."""
    return uri.removeprefix(ELSEWHERE) if uri.startswith(ELSEWHERE) else f"docs/{uri}"


def _in_site(path: str) -> str:
    """Return the path in the site of a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else ELSEWHERE + path
