"""Generated sections and links of the documentation site; MkDocs calls it as a hook.

- `DOCUMENTS` outside ``docs/`` become pages below ``project/``, and links to and from them lead there. A link to a file
  that the site does not have becomes its text, with the path in the repository.
- ``<!-- generated: KIND NAME -->`` is replaced by text from the code: ``command NAME`` by the help of a command,
  ``environment`` by the environment variables, ``manifest`` by its fields, ``settings`` by those of a run, ``file
  PATH`` by a Python file of the repository. In the repository the mark is invisible; a line right below it is for
  readers there and is replaced too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts import docs_commands, manifest_fields

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = "project/"
DOCUMENTS = ("SECURITY.md",)
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)([^)]*)\)")
_MARK = re.compile(r"^<!-- generated: (\w+) ?(\S*) -->(?:\n.+)?$", re.MULTILINE)


def _file(path: str) -> str:
    """Return a Python file as a block."""
    return f"```python\n{(ROOT / path).read_text(encoding='utf-8')}```"


_GENERATORS: dict[str, Callable[[str], str]] = {
    "command": docs_commands.page,
    "environment": docs_commands.environment,
    "file": _file,
    "manifest": manifest_fields.page,
    "settings": docs_commands.settings,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie outside ``docs/``."""
    for name in DOCUMENTS:
        files.append(File.generated(config, ELSEWHERE + name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in the generated sections, and turn links of the repository into links of the site."""
    where = page.file.src_uri

    def relinked(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(_in_repository(where)), link[2]))
        in_site = path.removeprefix("docs/") if path.startswith("docs/") else ELSEWHERE + path
        if (file := files.get_file_from_path(in_site)) and not file.inclusion.is_excluded():  # type: ignore[no-untyped-call]
            return f"[{link[1]}]({posixpath.relpath(in_site, posixpath.dirname(where))}{link[3]})"
        return f"{link[1]} (`{path}`)" if (ROOT / path).exists() else link[0]

    filled = _MARK.sub(lambda mark: _GENERATORS[mark[1]](mark[2]), markdown)
    return _LINK.sub(relinked, filled)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Replace the two colons that announce an example in docstrings by one, or by none on a line of their own."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def _in_repository(uri: str) -> str:
    """Return the path in the repository of a file of the site."""
    return uri.removeprefix(ELSEWHERE) if uri.startswith(ELSEWHERE) else f"docs/{uri}"
