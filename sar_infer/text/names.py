"""Class names as they are given: with a call, or in a text file, one per line, ``name`` or ``name = phrase | phrase``.

Blank lines and lines that start with ``#`` are skipped. A name without phrases is encoded as it is; phrases
are encoded instead of the name and averaged. Space around names and phrases does not count, nor does case.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_infer.errors import ClassFileError, ClassNameError, InputError

Classes = Sequence[str] | Mapping[str, str | list[str] | tuple[str, ...]]
"""Class names, or phrases by class name."""
Phrases = Mapping[str, tuple[str, ...]]
"""The texts to encode for each class, by its name."""
_EQUALS = re.compile(r"(?:^|\s)=(?:\s|$)")
_SPACES = "\t\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_UNEVEN = ("  ", " \n", "\n ", *_SPACES)
"""Spaces that ``name_key`` changes, in names that stand on a line each."""
_WIDE_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class ClassFile:
    """The content of a class file: phrases by name, in order, and a warning for each repeated name."""

    classes: Phrases
    warnings: tuple[str, ...] = ()


def name_key(name: str) -> str:
    """Return what all spellings of a class name share; composed and decomposed letters are the same."""
    return " ".join(unicodedata.normalize("NFC", name).split()).lower()


def name_keys(names: Sequence[str]) -> list[str]:
    """Return ``name_key`` of each name; of thousands at once it takes a third of the time."""
    text = unicodedata.normalize("NFC", "\n".join(names))
    if not any(spacing in text for spacing in _UNEVEN):
        keys = text.lower().split("\n")
        if len(keys) == len(names) and not (text[:1] == " " or text[-1:] == " "):
            return keys
    return list(map(name_key, names))


def spoken(text: str) -> str:
    """Return a name as encoders read it and as it is shown: underscores as spaces, single spaces."""
    return " ".join(text.replace("_", " ").split())


def phrases_by_name(classes: Classes | None) -> Phrases:
    """Return the phrases to encode for each name, by default the name itself; a repeated name counts once.

    Raises:
        ClassNameError: a name has no phrases, or something is not text.
        InputError: ``classes`` is a single string.
    """
    if isinstance(classes, str):
        raise InputError(f"classes: expected a list of names or phrases by name, got the string {classes!r}")
    entries = () if classes is None else classes  # arrays have no truth
    pairs = entries.items() if isinstance(entries, Mapping) else ((name, name) for name in entries)
    result: dict[str, tuple[str, ...]] = {}
    keys: set[str] = set()
    for name, value in pairs:
        phrases = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not phrases:
            raise ClassNameError(f"class name {name!r} has no phrases")
        for text in (name, *phrases):
            if not isinstance(text, str):
                raise ClassNameError(f"class name: expected text, got {text!r}")
        if name_key(name) not in keys:
            keys.add(name_key(name))
            result[name] = phrases
    return result


def read_class_file(path: Path, check: Callable[[str], object] = len) -> ClassFile:
    """Read and check a class file.

    Args:
        path: The file, UTF-8 with or without byte order mark.
        check: Called with every phrase; it raises ClassNameError if the encoder cannot take the phrase.

    Raises:
        ClassFileError: the file is missing, empty or binary, or has a bad line; the message names file and line.
    """
    classes: dict[str, tuple[str, ...]] = {}
    lines_by_key: dict[str, int] = {}
    warnings: list[str] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, phrases = parse_line(line)
            for phrase in phrases:
                check(phrase)
        except ClassNameError as error:
            raise ClassFileError(f"{path}:{number}: {error}") from None
        first = lines_by_key.setdefault(name_key(name), number)
        if first == number:
            classes[name] = phrases
        else:
            warnings.append(f"{path}:{number}: class name {name!r} is already on line {first}; used once")
    if not classes:
        raise ClassFileError(f"{path}: contains no class name; write one per line")
    return ClassFile(classes, tuple(warnings))


def parse_line(line: str) -> tuple[str, tuple[str, ...]]:
    """Return name and phrases of one line that is neither blank nor a comment.

    Raises:
        ClassNameError: the name or a phrase is empty.
    """
    name, *rest = (side.strip() for side in _EQUALS.split(line, maxsplit=1))
    phrases = tuple(phrase.strip() for phrase in rest[0].split("|")) if rest else (name,)
    if not name or not all(phrases):
        raise ClassNameError("expected 'name' or 'name = phrase | phrase', found an empty name or phrase")
    return name, phrases


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ClassFileError(
            f"{path}: no such class file; expected a text file with one name a line, or names with commas between"
        ) from None
    except IsADirectoryError:
        raise ClassFileError(f"{path}: is a folder; expected a text file with one name a line") from None
    except OSError as error:
        raise ClassFileError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.strip():
        raise ClassFileError(f"{path}: empty; write one class name a line")
    if data.startswith(_WIDE_ENCODINGS):
        raise ClassFileError(f"{path}: UTF-16 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
        bad = data.find(b"\0")
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise ClassFileError(
            f"{path}:{line}: binary data (byte 0x{data[bad]:02x}); expected UTF-8 text, one name a line"
        )
    return text
