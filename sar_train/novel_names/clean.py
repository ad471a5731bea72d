"""Extract names from the answer of a language model: from lists, JSON and tables, with any text around them.

Clean names stay as they are: `names_in` of its own result, one name a line, is that result.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence

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

    Args:
        answer: as it came.
        trained: names of the training classes.
    """
    limit = max(WORDS, max((len(name.replace("_", " ").split()) for name in trained), default=0) + 2)
    numeric = any(not re.search(r"[^\W\d_]", name) for name in trained)
    keys, names = {"", *map(key, trained)}, []
    for line in _lines(_THOUGHT.sub("\n", answer)):
        for name in _pieces(" ".join(line.split())):
            usable = (
                len(name.split()) <= limit
                and (numeric or re.search(r"[^\W\d_]", name) is not None)
                and name.isprintable()
                and _FORBIDDEN.isdisjoint(name)
                and _CHATTER.match(name) is None
            )
            if usable and key(name) not in keys:
                keys.add(key(name))
                names.append(name)
    return names


def _lines(answer: str) -> Iterator[str]:
    """Yield the items of the JSON in the answer, else its lines without fences, headings and rules of tables."""
    for start in re.finditer(r"[\[{]", answer):
        try:
            value, _ = json.JSONDecoder().raw_decode(answer[start.start() :])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):  # whose first list counts
            value = next((items for items in value.values() if isinstance(items, list)), [])
        entries = [next(iter(e.values()), None) if isinstance(e, dict) and "name" not in e else e for e in value]
        texts = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
        if names := [text for text in texts if isinstance(text, str)]:
            yield from names
            return
    lines = [line.strip() for line in answer.splitlines()]
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        heading = re.match(r"#+\s", line) or re.fullmatch(r"\|?[\s|:-]*-{3}[\s|:-]*", after)
        if line and not line.startswith("```") and not (heading and ("|" in line or line[0] == "#")):
            cells = [cell for cell in line.strip("|").split("|") if re.search(r"[^\W\d_]", cell)]
            yield cells[0] if line.startswith("|") and cells else line


def _pieces(line: str) -> Iterator[str]:
    """Yield the names of one line, cleaned until nothing changes any more."""
    if re.search(r"[:!?]\W*$", line):  # a line that introduces a list, or comments on it
        return
    line = _BULLET.sub("", line)
    head, colon, tail = line.partition(": ")
    for entry in _commas(tail) if colon and len(_commas(tail)) > 2 and "," not in head else _commas(line):
        text = re.sub(r"^(\*\*|__|\"|“|')(.+?)(\*\*|__|\"|”|')\s.*$", r"\2", _BULLET.sub("", entry.strip()))
        piece = " ".join(_EXPLANATION.sub("", text).replace("_", " ").strip(_WRAPPING).split())
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
