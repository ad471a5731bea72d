"""Extract names from the answer of a language model: from lists, JSON and tables, with any text around them.

Clean names stay as they are: `names_in` of its own result, one name a line, is that result.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

LONGEST_PIECE = 100
"""Characters; no class name is longer."""
WORDS = 6
"""Words that a name may have where the training names have no more than four."""
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*+•·‣▪◦–—>]+\s+|\[[ xX]?\]\s*|\(?\d{1,4}[.)](?!\d)\s*|\d{1,4}:\s+|[a-zA-Z]\)\s+)+")
_WRAPPING = " \t*_`~\"'“”„‘’«»[]{}(),;.:|\\"
_EXPLANATION = re.compile(
    r"\s+(?:[-–—=]|->|→)+\s+.*$|\s*[:;]\s.*$|(?<=\S)\s*\([^()]*\)?\s*$|(?<=\S)\s*\[[^\[\]]*\]?\s*$"
)
_CHATTER = re.compile(
    r"(sure|certainly|absolutely|of course|okay|ok|here (are|is)|here's|below (are|is)|the following|these are|"
    r"note that|let me|please|sorry|as an ai|that is all|that's all|there (are|is) no|no (more|further|other)|none|"
    r"hope this|feel free|i'm|i've|i'll|i (am|can|cannot|could|did|do|have|hope|made|think|tried|will|would))\b",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(an?|the|any|which|used|often|usually|and|or|with|also)\s", re.IGNORECASE)
_MARKS = ("Mc", "Mn")
"""Unicode's categories of accents and of the vowels of many scripts."""
_EMOJI = {chr(code) for code in range(0xFE00, 0xFE10)}
"""Variation selectors, which are marks too but of no letter."""
_FORBIDDEN = set('<>{}[]|`*"\\\t!?:;,')


def key(name: str) -> str:
    """Return a name's letters, their marks and digits in lower case; two names are the same if these are."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in plain if c.isalnum() or (unicodedata.category(c) in _MARKS and c not in _EMOJI))


def names_in(answer: str, trained: Sequence[str] = ()) -> list[str]:
    """Return the names that an answer lists, in its order and each once, without the training names.

    Numbering, bullets, Markdown, quotes, code fences, JSON, explanations and sentences around the list are taken off.
    Case follows the training names, where those agree on one.

    Args:
        answer: as it came.
        trained: names of the training classes.
    """
    limit = max(WORDS, max((len(name.replace("_", " ").split()) for name in trained), default=0) + 2)
    numeric = any(not re.search(r"[^\W\d_]", name) for name in trained)
    style = _Style(trained)
    keys, names = {key(name) for name in trained}, []
    for line in _lines(_THOUGHT.sub("\n", answer)):
        for piece in _pieces(" ".join(line.split())):
            name = style(piece)
            if key(name) in keys or not _usable(name, limit, numeric=numeric):
                continue
            keys.add(key(name))
            names.append(name)
    return names


class _Style:
    """Lower case, or capitals at the beginning of words, where all training names have that."""

    def __init__(self, trained: Sequence[str]) -> None:
        words = [word for name in trained for word in name.replace("_", " ").split() if word[0].isalpha()]
        self._lower = bool(words) and all(name == name.lower() for name in trained)
        self._capitals = bool(words) and not self._lower and all(word[0].isupper() for word in words)

    def __call__(self, name: str) -> str:
        if self._lower:
            return name.lower()
        return " ".join(word[:1].upper() + word[1:] for word in name.split()) if self._capitals else name


def _lines(answer: str) -> Iterator[str]:
    """Yield the items of the JSON in the answer, else its lines without fences, headings and rules of tables."""
    for start in re.finditer(r"[\[{]", answer):
        try:
            value, _ = json.JSONDecoder().raw_decode(answer[start.start() :])
        except (ValueError, RecursionError):
            continue
        items = list(_strings(value))
        if items:
            yield from items
            return
    lines = [line.strip() for line in answer.splitlines()]
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        heading = re.match(r"#+\s", line) or re.fullmatch(r"\|?[\s|:-]*-{3}[\s|:-]*", after)
        if line and not line.startswith("```") and not (heading and ("|" in line or line[0] == "#")):
            cells = [cell for cell in line.strip("|").split("|") if re.search(r"[^\W\d_]", cell)]
            yield cells[0] if line.startswith("|") and cells else line


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings of a list, or of the first list in an object; objects in a list give their ``name``."""
    if isinstance(value, dict):
        value = next((items for items in value.values() if isinstance(items, list)), [])
    if isinstance(value, list):
        for item in value:
            text = next(iter(item.values()), None) if isinstance(item, dict) and "name" not in item else item
            text = text["name"] if isinstance(text, dict) and "name" in text else text
            if isinstance(text, str):
                yield text


def _pieces(line: str) -> Iterator[str]:
    """Yield the names of one line, cleaned until nothing changes any more."""
    if re.search(r"[:!?]\W*$", line):  # a line that introduces a list, or comments on it
        return
    line = _BULLET.sub("", line)
    head, colon, tail = line.partition(": ")
    for entry in _commas(tail) if colon and len(_commas(tail)) > 2 and "," not in head else _commas(line):
        piece = _stripped(entry)
        if len(piece) > LONGEST_PIECE or not piece:
            continue
        if piece == entry == line:
            yield piece
        else:
            yield from _pieces(piece)


def _commas(line: str) -> list[str]:
    """Return the parts of an enumeration, or only the first where the rest explains it."""
    entries = [entry for entry in re.split(r"[,;]\s*", line) if entry.strip(_WRAPPING)]
    plain = all(len(entry.split()) <= WORDS - 2 and not _ARTICLE.match(entry) for entry in entries[1:])
    return entries if plain else entries[:1]


def _stripped(text: str) -> str:
    """Return a name without explanation, wrapping, bullets and repeated blanks."""
    text = _BULLET.sub("", text.strip())
    text = re.sub(r"^(\*\*|__|\"|“|')(.+?)(\*\*|__|\"|”|')\s.*$", r"\2", text)
    text = _EXPLANATION.sub("", text)
    return " ".join(text.replace("_", " ").strip(_WRAPPING).split())


def _usable(name: str, limit: int, *, numeric: bool) -> bool:
    """Return True if a piece may be a name: short, printable, no sentence."""
    return (
        bool(key(name))
        and len(name.split()) <= limit
        and (numeric or re.search(r"[^\W\d_]", name) is not None)
        and name.isprintable()
        and _FORBIDDEN.isdisjoint(name)
        and _CHATTER.match(name) is None
    )
