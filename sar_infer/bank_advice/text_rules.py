"""Rules that need no embedding: the characters, words, tokens and spelling of a class name or phrase.

They tell how a prompt around the text, the vocabulary of CLIP, and the names that are known already, fit it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sar_infer.bank_advice.finding import Finding
from sar_infer.errors import ClassNameError
from sar_infer.text import TokenizerSpec
from sar_infer.text.names import name_key, spoken
from sar_infer.text.tokenizer import Tokenizer, clean, encode_name

_THE = r"(?:an?|the)\s+(?!(?:and|or)\b)(?=\w)"
"""An article, unlike the letter in ``a and b`` or ``a & b``."""
_ARTICLE = re.compile(_THE, re.IGNORECASE)
_PROMPT = re.compile(rf"(?:{_THE})?(?:photo|picture|image|photograph)\s+of\s+(?:{_THE})?(?=\S)", re.IGNORECASE)
_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|txt)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z]{3})(?=[A-Z][a-z]{2})")
_KIND = re.compile(r"(.*\S)\s*\(([^()]+)\)\s*$")
_CODE = re.compile(r"\d{5,}|[A-Z]{2,}[-_]?\d{3,}|#\d+")
_LATIN = ("LATIN", "FEMININE", "MASCULINE", "FULLWIDTH", "MODIFIER")
"""First words of the Unicode names of letters that are Latin, or stand among Latin ones."""
_PARTS = re.compile(r"[^\W\d_]+")
_MOST_TOKENS = 6
_LEAST_LETTERS = 2.0
"""Letters a token below which a word is in pieces; a word that CLIP knows is one token, a rare one two or three."""
_SHORT = 4
_JOINT = re.compile(r"[\W_]+")


class Encodes(Protocol):
    """A tokenizer, of a bundle or of a backbone."""

    def encode(self, text: str, /) -> Sequence[int]:
        """Return the token ids of a text, without start and end token."""


def _odd_characters(name: str, text: str) -> Iterator[Finding]:
    """Find characters that CLIP's vocabulary, made from English text, knows only byte by byte."""
    hidden = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn") and c not in "\t\n"})
    if hidden:
        shown = ", ".join(f"U+{ord(c):04X}" for c in hidden[:3])
        visible = "".join(c for c in text if c not in hidden)
        yield Finding(
            "odd-characters", "warning", name, f"holds characters that cannot be seen ({shown})", visible or None
        )
    symbols = [c for c in dict.fromkeys(text) if unicodedata.category(c) == "So"]
    if symbols:
        words = text
        for symbol in symbols:
            words = words.replace(symbol, f" {unicodedata.name(symbol, '').lower()} ")
        message = f"holds symbols ({''.join(symbols[:5])}), which say little to the encoder; spell them out"
        yield Finding("odd-characters", "warning", name, message, " ".join(words.split()) or None)
    scripts = sorted({_script(c) for c in text if c.isalpha()} - {"latin"})
    if scripts:
        mixed = any(c.isalpha() and _script(c) == "latin" for c in text)
        problem = (
            f"mixes Latin letters with {', '.join(scripts)} ones" if mixed else f"is written in {', '.join(scripts)}"
        )
        message = f"{problem}; the text encoder learned English, so write the English name"
        yield Finding("odd-characters", "warning", name, message)


def _wording(name: str, text: str) -> Iterator[Finding]:
    """Find wordings that repeat the prompt, hide a word, or name two things; suggest another."""
    if _CODE.search(text):
        yield Finding("wording", "warning", name, "looks like a code; the encoder knows words: say what can be seen")
    if _FILE.search(text):
        yield Finding("wording", "warning", name, "looks like a file name", spoken(_FILE.sub("", text)) or None)
    elif text.rstrip().endswith((".", ",", ";", ":")):
        yield Finding("wording", "info", name, "the prompt ends the sentence itself", text.rstrip(" .,;:") or None)
    prompt = _PROMPT.match(text)
    if prompt:
        yield Finding("wording", "warning", name, "the prompt says already that it is a photo", text[prompt.end() :])
    elif article := _ARTICLE.match(text):
        yield Finding("wording", "info", name, "the prompt adds the article", text[article.end() :])
    if match := _KIND.fullmatch(text):
        message = "the encoder takes brackets for part of the name; put the kind after a comma"
        yield Finding("wording", "info", name, message, f"{match[1]}, {match[2]}")
    elif name == text:
        yield from _either(name)


def _glued(text: str) -> str | None:
    """Return the text with a space before each inner capital (``goldenRetriever``), None if it has none."""
    words = spoken(_CAMEL.sub(" ", text))
    return words if words != spoken(text) else None


def unusable(name: str, text: str, tokenizer: Tokenizer, spec: TokenizerSpec) -> Finding | None:
    """Find the reason why the encoder cannot take a text; None if it can.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
        tokenizer: The tokenizer of the bundle.
        spec: How names become tokens.
    """
    try:
        encode_name(tokenizer, spec, text)
    except ClassNameError as error:
        words = clean(text.replace("_", " ")).split()
        fitting = _fitting(words, tokenizer, spec)
        if fitting == len(words):
            return Finding("unusable", "error", name, str(error))
        lost = " ".join(words[fitting:])
        message = f"{spec.max_name_tokens} tokens fit, so this would be lost: {lost[:60]!r}{'…' if lost[60:] else ''}"
        return Finding("too-long", "error", name, message, " ".join(words[:fitting]) or None)
    return None


def _odd_tokens(name: str, text: str, tokenizer: Encodes) -> Iterator[Finding]:
    """Find words that the vocabulary does not have, and words that were glued together."""
    apart = _glued(text)
    if apart and any(len(tokenizer.encode(word)) > 1 for word in text.split() if _glued(word)):
        yield Finding("odd-tokens", "warning", name, "is read in lower case, as one word; put spaces", apart)
    broken: dict[str, int] = {}
    for word in _PARTS.findall(text):
        count = len(tokenizer.encode(word))
        if count >= _MOST_TOKENS or (len(word) >= _SHORT and len(word) < _LEAST_LETTERS * count):
            broken[word[:30]] = count
    if broken:
        shown = ", ".join(f"{word!r} into {count}" for word, count in [*broken.items()][:3])
        message = f"the vocabulary breaks {shown} tokens; a commoner word or a phrase may do better"
        yield Finding("odd-tokens", "warning" if max(broken.values()) >= _MOST_TOKENS else "info", name, message)


def text_findings(name: str, text: str, tokenizer: Encodes) -> Iterator[Finding]:
    """Find what is odd about the characters, the wording and the tokens of a text.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
        tokenizer: CLIP's tokenizer.
    """
    yield from _odd_characters(name, text)
    yield from _wording(name, text)
    yield from _odd_tokens(name, text, tokenizer)


class KnownNames:
    """Finds names that are the same to a reader: equal up to case, space, accents, hyphens or plural.

    Args:
        names: Pairs of a known name or alias, and the class that it stands for.
    """

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        self._exact: dict[str, str] = {}
        self._loose: dict[str, str] = {}
        for name, owner in names:
            self.add(name, owner)

    def add(self, name: str, owner: str) -> None:
        """Add a known name; if several share a spelling, the first one keeps it."""
        self._exact.setdefault(name_key(name), owner)
        self._loose.setdefault(_loose_key(name), owner)

    def check(self, name: str) -> Finding | None:
        """Find the known class that a name doubles; None if it doubles none."""
        owner = self._exact.get(name_key(name))
        if owner is not None:
            message = "is known already" if owner == name else f"is a name of {owner!r} already"
            return Finding("duplicate", "info" if owner == name else "warning", name, message, owner)
        owner = self._loose.get(_loose_key(name))
        if owner is None:
            return None
        message = f"is close to the class {owner!r}; use that name, or make this an alias, if both mean the same"
        return Finding("duplicate", "warning", name, message, owner)


def _loose_key(name: str) -> str:
    """Return what all spellings of a name share: lower case, letters and digits, no accents, the singular."""
    plain = unicodedata.normalize("NFKD", clean(name))
    bare = plain if plain.isascii() else "".join(c for c in plain if not unicodedata.combining(c))
    words = _JOINT.split(bare.strip())
    words = [word for word in words if word] or [plain]
    return "".join([*words[:-1], _singular(words[-1])])


def _either(name: str) -> Iterator[Finding]:
    """Find two things in one name; which words belong to which is for the user to say, as in ``red/blue skirt``."""
    parts = name.split("/")
    slashed = len(parts) > 1 and all(segment.strip() and not segment.strip().isdecimal() for segment in parts)
    if slashed or " or " in name:
        message = "seems to name more than one thing; if so, 'name = phrase | phrase' averages them"
        yield Finding("wording", "info", name, message)


def _script(letter: str) -> str:
    """Return the script of a letter, by the first word of its Unicode name."""
    script = unicodedata.name(letter, "unknown").split()[0]
    return "latin" if script in _LATIN else script if script == "CJK" else script.split("-")[0].capitalize()


def _fitting(words: Sequence[str], tokenizer: Tokenizer, spec: TokenizerSpec) -> int:
    """Return how many words, from the first on, fit; all of them if the length is not at fault."""
    room = spec.max_name_tokens - len(tokenizer.encode(spec.suffix))
    for count, word in enumerate(words):
        room -= len(tokenizer.encode(word))
        if room < 0:
            return count
    return len(words)


def _singular(word: str) -> str:
    """Return a stem that an English noun and its plural share, such as ``hous`` for ``house`` and ``houses``."""
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    if word.endswith("ie"):
        return word[:-2] + "y"
    if word.endswith(("fe", "ve")):
        return word[:-2] + "f"
    return word[:-1] if word.endswith(("che", "oe", "se", "she", "xe", "ze")) else word
