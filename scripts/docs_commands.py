"""Make the reference of the commands from their ``--help``."""

from __future__ import annotations

import html
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sar_infer.cli.command import Key
from sar_infer.cli.variables import subcommands, variable

ROOT = Path(__file__).resolve().parent.parent
_PARAGRAPHS = re.compile(r"\n\s*\n")
_MARKUP = re.compile(r"(?P<code>`[^`]+`)|[\\`*_<\[\]]")
_EXTRA = re.compile(r"(.*?)\s*(\[default.*\])?", re.DOTALL)


def page(name: str) -> str:
    """Return Markdown for a command of ``pyproject.toml`` and all its subcommands."""
    return "\n\n".join(section for command, context in commands(name) for section in _described(command, context))


def settings(_: str) -> str:
    """Return a table of the settings of a run, with help and defaults."""
    from sar_train.cli.settings import help_of
    from sar_train.config.run import SETTINGS

    return _table([(name, help_of(name)) for name in SETTINGS])


def environment(_: str) -> str:
    """Return a table of the environment variables of each command."""
    rows = []
    for name in _project()["scripts"]:
        for command, context in commands(name):
            variables = (variable(one, context) for one in command.get_params(context) if not one.is_eager)
            rows.append((context.command_path, " ".join(filter(None, variables))))
    return _table([(path, variables) for path, variables in rows if variables])


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def commands(name: str) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command of ``pyproject.toml``, then its subcommands at every depth, each with a context to format it."""
    module, _, attribute = _project()["scripts"][name].partition(":")
    yield from subcommands(getattr(importlib.import_module(module), attribute), name)


def _described(command: click.Command, context: click.Context) -> list[str]:
    """Return heading, usage, help, options and examples of one command: the parts of its section."""
    level = context.command_path.count(" ") + 2  # below the heading of the page
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parameters = command.get_params(context)
    records = [one.get_help_record(context) for one in parameters]
    keys = [one.record(context) for one in parameters if isinstance(one, Key)]
    return [
        f"{'#' * level} {context.command_path}",
        f"```text\n{usage}\n```",
        *_prose(command.help),
        *filter(None, [_table([record for record in records if record and record[1]])]),
        *(["Keys of `--config` and `--set`:", _table(keys)] if keys else []),
        *_prose(command.epilog),
    ]


def _prose(text: str | None) -> list[str]:
    """Return the paragraphs of a help text; those after a backspace, which click does not wrap, become blocks."""
    paragraphs = _PARAGRAPHS.split(inspect.cleandoc(text or ""))
    return [_block(p[2:]) if p.startswith("\b\n") else _MARKUP.sub(_escaped, p) for p in paragraphs if p]


def _escaped(markup: re.Match[str]) -> str:
    """Escape the characters that mean something to Markdown, except in code."""
    return markup["code"] or f"\\{markup[0]}"


def _block(lines: str) -> str:
    """Return lines as a block, below their title where they have one."""
    first, _, others = lines.partition("\n")
    title, body = (first, others) if first.endswith(":") else ("", lines)
    return f"{title}\n\n```text\n{inspect.cleandoc(chr(10) + body)}\n```".lstrip()


def _table(records: list[tuple[str, str]]) -> str:
    """Return a table of options and help, with the default on a line of its own; "" without rows."""
    rows = []
    for flags, text in records:
        match = _EXTRA.fullmatch(text)
        assert match is not None  # noqa: S101 - both groups may be empty
        description, extra = (html.escape(group or "") for group in match.groups())
        rows.append(f"<tr><td><code>{html.escape(flags)}</code></td><td>{description} <small>{extra}</small></td></tr>")
    return "" if not rows else f'<div class="options"><table>\n{chr(10).join(rows)}\n</table></div>'
