"""The classes that a command is given: on the command line, and in a class file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from sar_infer.errors import one_line


def given_classes(
    names: Iterable[str], file: Path | None, check: Callable[[str], object] = len
) -> Mapping[str, tuple[str, ...]]:
    """Phrases by class name, from the command line (``name`` or ``name = phrase | phrase``) and a class file.

    Raises:
        ClassNameError: a line is wrong.
        ClassFileError: the file is.
    """
    from sar_infer.text.names import name_key, parse_line, read_class_file

    classes = {}
    for line in names:
        name, phrases = parse_line(line)
        for phrase in phrases:
            check(phrase)
        classes[name] = phrases
    if file is not None:
        found = read_class_file(file, check)
        for warning in found.warnings:
            click.echo(f"Warning: {one_line(warning)}", err=True)
        seen = {name_key(name) for name in classes}
        classes |= {name: phrases for name, phrases in found.classes.items() if name_key(name) not in seen}
    return classes
