"""Rules that read a name's characters alone: what a prompt around the name, or CLIP's vocabulary, makes of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from sar_infer.lint.finding import Finding

_THE = r"(?:an?|the)\s+(?!(?:and|or)\b)(?=\w)"
"""An article, unlike the letter in ``a and b`` or ``a & b``."""
_ARTICLE = re.compile(_THE, re.IGNORECASE)
_PROMPT = re.compile(rf"(?:{_THE})?(?:photo|picture|image|photograph)\s+of\s+(?:{_THE})?(?=\S)", re.IGNORECASE)
_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|txt)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z]{3})(?=[A-Z][a-z]{2})")
_KIND = re.compile(r"(.*\S)\s*\(([^()]+)\)\s*$")
_CODE = re.compile(r"\d{5,}|[A-Z]{2,}[-_]?\d{3,}|#\d+")
_LATIN = ("LATIN", "FEMININE", "MASCULINE", "FULLWIDTH", "MODIFIER")
"""How the Unicode names of letters begin that are Latin ones, or stand among them."""


def odd_characters(name: str, text: str) -> Iterator[Finding]:
    """Characters that CLIP's vocabulary, made from English text, knows only byte by byte.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
    """
    hidden = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn") and c not in "\t\n"})
    if hidden:
        shown = ", ".join(f"U+{ord(c):04X}" for c in hidden[:3])
        clean = "".join(c for c in text if c not in hidden)
        yield Finding(
            "odd-characters", "warning", name, f"holds characters that cannot be seen ({shown})", clean or None
        )
    symbols = [c for c in dict.fromkeys(text) if unicodedata.category(c) == "So"]
    if symbols:
        spoken = text
        for symbol in symbols:
            spoken = spoken.replace(symbol, f" {unicodedata.name(symbol, '').lower()} ")
        message = f"holds symbols ({''.join(symbols[:5])}), which say little to the encoder; spell them out"
        yield Finding("odd-characters", "warning", name, message, " ".join(spoken.split()) or None)
    scripts = sorted({_script(c) for c in text if c.isalpha()} - {"latin"})
    if scripts:
        mixed = any(c.isalpha() and _script(c) == "latin" for c in text)
        what = f"mixes Latin letters with {', '.join(scripts)} ones" if mixed else f"is written in {', '.join(scripts)}"
        message = f"{what}; the text encoder learned English, so write the English name"
        yield Finding("odd-characters", "warning", name, message)


def wording(name: str, text: str) -> Iterator[Finding]:
    """Wordings that repeat the prompt, hide a word, or name two things; each with one to try in its place.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
    """
    if _CODE.search(text):
        yield Finding("wording", "warning", name, "looks like a code; the encoder knows words: say what is to be seen")
    if _FILE.search(text):
        yield Finding("wording", "warning", name, "looks like a file name", _words(_FILE.sub("", text)) or None)
    elif text.rstrip().endswith((".", ",", ";", ":")):
        yield Finding("wording", "info", name, "the prompt ends the sentence itself", text.rstrip(" .,;:") or None)
    prompt = _PROMPT.match(text)
    if prompt:
        yield Finding("wording", "warning", name, "the prompt says already that it is a photo", text[prompt.end() :])
    elif article := _ARTICLE.match(text):
        yield Finding("wording", "info", name, "the prompt brings the article", text[article.end() :])
    if found := _KIND.fullmatch(text):
        message = "the encoder takes brackets for part of the name; put the kind behind a comma"
        yield Finding("wording", "info", name, message, f"{found[1]}, {found[2]}")
    elif name == text:
        yield from _either(name)


def _either(name: str) -> Iterator[Finding]:
    """Two things in one name; which words belong to which is clear with a slash alone."""
    parts = name.split("/")
    if "/" in name and all(part.strip() and not part.strip().isdecimal() for part in parts):
        phrases = " | ".join(part.strip() for part in parts)
        message = "names more than one thing; as phrases they are embedded apart and averaged"
        yield Finding("wording", "info", name, message, f"{parts[0].strip()} = {phrases}")
    elif " or " in name:
        message = "names more than one thing; 'name = phrase | phrase' averages them"
        yield Finding("wording", "info", name, message)


def glued(text: str) -> str | None:
    """The same with a space at each inner capital (``goldenRetriever``), None where there is none."""
    words = _words(_CAMEL.sub(" ", text))
    return words if words != _words(text) else None


def _words(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


def _script(letter: str) -> str:
    """The script of a letter, as its Unicode name begins."""
    script = unicodedata.name(letter, "unknown").split()[0]
    return "latin" if script in _LATIN else script if script == "CJK" else script.split("-")[0].capitalize()
