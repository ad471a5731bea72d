"""Commands, options, keys and extras that messages name exist."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sar_infer.cli.command import Key
from sar_infer.errors import install
from sar_train.methods.base import methods
from sar_train.regularisers.base import regularisers
from scripts import docs_commands

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMMAND = re.compile(r"\b(sar-(?:bank|bundle|classify|experiment|export|serve|train))\b((?: (?:[\w.{}/-]|\[|\])+)*)")
OPTION = re.compile(r"(?<![\w-])--[a-z](?:[\w-]*\w)?(?![\w-])")
SETTING = re.compile(r"--set ([\w-]+(?:\.[\w-]+)?)=")
PROSE = {"and", "asked", "at", "can", "is", "reads", "that", "to", "works", "writes", "wrote"}
"""Words that follow the name of a command in a sentence about it."""
ELSEWHERE = {"--data-binary", "--head"}
"""Options of curl and of ray."""
DECLARATION = re.compile(r"^--[\w-]+(/--[\w-]+)?$")
NO_MESSAGES = "sar_train/report/charts.py"
"""Names of CSS variables begin like options."""


def tree() -> dict[str, dict[str, click.Option]]:
    """Return the options of each command by its words."""
    return {
        context.command_path: {
            flag: option
            for option in command.get_params(context)
            if isinstance(option, click.Option)
            for flag in (*option.opts, *option.secondary_opts)
        }
        for name in PROJECT["scripts"]
        for command, context in docs_commands.commands(name)
    }


def texts() -> Iterator[tuple[str, str]]:
    """Yield each text of the packages but docstrings and declared options, and where it is; values are ``{}``."""
    for package in ("sar_infer", "sar_train"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path == ROOT / NO_MESSAGES:
                continue
            module = ast.parse(path.read_text("utf-8"))
            within = {id(part) for node in ast.walk(module) if isinstance(node, ast.JoinedStr) for part in node.values}
            within |= {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
            for node in ast.walk(module):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                    yield where, "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
                    yield where, DECLARATION.sub("", node.value)


TREE = tree()
TEXTS = [*texts()]
OPTIONS = {flag for options in TREE.values() for flag, option in options.items() if not isinstance(option, Key)}
KEYS = {flag[2:] for options in TREE.values() for flag in options if flag.startswith("--")}


def wrong(text: str) -> Iterator[str]:
    """Yield what a text names and does not exist."""
    for name, words in COMMAND.findall(text):
        path, *rest = (name, *(word.rstrip(".") for word in words.split()))
        if any(key.startswith(f"{path} ") for key in TREE) and rest and re.fullmatch("[a-z]+", rest[0]):
            if f"{path} {rest[0]}" in TREE:
                path = f"{path} {rest[0]}"
            elif rest[0] not in PROSE:
                yield f"{path} {rest[0]}"
        for word in rest:
            option = TREE[path].get(word)
            if word.startswith("--") and (option is None or isinstance(option, Key)):
                yield f"{path} {word}"
    yield from {*OPTION.findall(text)} - OPTIONS - ELSEWHERE
    for key in SETTING.findall(text):
        section, dot, _ = key.partition(".")
        if section not in ({*methods.entries, *regularisers.entries} if dot else KEYS):
            yield f"--set {key}"


def test_texts_name_commands_and_options_that_exist() -> None:
    assert len(TEXTS) > 1000
    assert [f"{where}: {fault}" for where, text in TEXTS for fault in wrong(text)] == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("run sar-bank fitt BANK_FILE", ["sar-bank fitt"]),
        ("sar-bank add FILE --photo FOLDER", ["sar-bank add --photo", "--photo"]),
        ("sar-serve --max-body 3", ["sar-serve --max-body", "--max-body"]),
        ("use --set max-bodi=3", ["--set max-bodi"]),
        ("one that sar-bank wrote; --set coop.n_ctx=4", []),
    ],
)
def test_what_does_not_exist_is_noticed(text: str, faults: list[str]) -> None:
    assert [*wrong(text)] == faults


def test_extras_that_are_named_exist_and_are_installed_from_a_clone() -> None:
    calls = [
        node.args[0].value
        for package in ("sar_infer", "sar_train")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "install"
        if isinstance(node.args[0], ast.Constant)
    ]
    assert len(calls) > 8
    assert {extra for call in calls for extra in str(call).split(",")} <= {*PROJECT["optional-dependencies"]}
    assert install("bulk", "s3fs") == "pip install '.[bulk]' s3fs in a clone of sar-clip"
    assert [where for where, text in TEXTS if "pip install" in text and "in a clone of sar-clip" not in text] == []
