"""Tokenizers, with their data read from a bundle: CLIP's own and those of the library ``tokenizers``.

CLIP's is equal to ``open_clip.SimpleTokenizer.encode``, and loads in milliseconds without that library.

The vocabulary is, in this order: 256 byte symbols, the same 256 at the end of a word, one entry per merge, the start
token and the end token. So the merge of rank ``r`` makes token ``512 + r``: only the list of merges is stored, and ids
are computed as merges are met, without a dictionary of all tokens.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import html
import itertools
import json
import math
import string
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sar_infer.errors import BundleError, ClassNameError, install
from sar_infer.text import Cleaning, TokenizerSpec

_WORD_END = "</w>"
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
_LONGEST_TEXT = 4096
_LARGEST_FILE = 2**23
"""CLIP's merges take 0.5 MB, the whole list that they are taken from 3 MB."""
_MOST_GROWTH = 1000
"""Characters that a normaliser may make of one, and characters of a mark of word pieces."""
_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """Turns text into token ids.

    Args:
        merges: Pairs ``first second``, the most frequent first.
    """

    def __init__(self, merges: Sequence[str]) -> None:
        self._ranks = dict(zip(merges, range(len(merges)), strict=True))
        symbols = _byte_symbols()
        self._symbols = [symbols[byte] for byte in range(256)]
        self._ids = {symbol: index for index, symbol in enumerate(symbols.values())}
        self._ids |= {symbol + _WORD_END: index + 256 for symbol, index in self._ids.items()}
        self.start_token = 512 + len(merges)
        self.end_token = self.start_token + 1
        self.reserved = frozenset([self.start_token, self.end_token])
        self._word_ids = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Read a gzip file in UTF-8: a first line with the version, then one merge per line.

        Raises:
            BundleError: The file is missing or damaged.
        """
        try:
            with gzip.open(path) as stream:
                text = stream.read(_LARGEST_FILE + 1)
            if len(text) > _LARGEST_FILE:
                raise BundleError(f"{path}: not a tokenizer file (more than {_LARGEST_FILE:,} bytes unpacked)")
            lines = text.decode("utf-8").splitlines()[1:]
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise BundleError(f"{path}: not a tokenizer file ({error})") from None
        if not lines or any(line.count(" ") != 1 for line in lines):
            raise BundleError(f"{path}: not a tokenizer file (expected 'first second' on every line after the first)")
        return cls(lines)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without start and end token."""
        return [token for word in _pattern().findall(clean(text)) for token in self._word_ids(word)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if word in (_START, _END):
            return (self.start_token if word == _START else self.end_token,)
        parts = [self._symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += _WORD_END
        while len(parts) > 1:
            pairs = {f"{first} {second}" for first, second in itertools.pairwise(parts)}
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            first, second = best.split(" ")
            self._ids[first + second] = 512 + self._ranks[best]
            parts = _merge(parts, first, second)
        return tuple(self._ids[symbol] for symbol in parts)


class JsonTokenizer:
    """A tokenizer of the library ``tokenizers``, which is imported when one is opened.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``; it must neither pad nor truncate.
        cleaning: How texts are cleaned.
    """

    def __init__(self, tokenizer: Any, cleaning: Cleaning) -> None:
        self._tokenizer, self._cleaning = tokenizer, cleaning
        unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "<unk>")
        special = tokenizer.get_added_tokens_decoder().items()
        self.reserved = frozenset(token for token, added in special if added.special and token != unknown)

    @classmethod
    def open(cls, path: Path, cleaning: Cleaning) -> JsonTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            BundleError: The library is not installed, or the file is missing, damaged or needs too much memory.
        """
        try:
            import tokenizers
        except ModuleNotFoundError:
            raise BundleError(f"{path}: needs the library tokenizers: {install('tokenizers')}") from None
        try:
            with library_errors():
                tokenizer = tokenizers.Tokenizer.from_file(str(path))
            normalizer = tokenizer.normalizer
            growth = 1 if normalizer is None else _growth(json.loads(normalizer.__getstate__()))
            marks = [getattr(tokenizer.model, key, None) or "" for key in _MARKS]
        except ValueError as error:
            raise BundleError(f"{path}: not a tokenizer file ({error})") from None
        if max(growth, *map(len, marks)) > _MOST_GROWTH:
            raise BundleError(f"{path}: makes texts more than {_MOST_GROWTH:,} times as long")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, cleaning)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length, without start and end token.

        Raises:
            ClassNameError: The library cannot encode it.
        """
        try:
            with library_errors():
                ids: list[int] = self._tokenizer.encode(clean(text, self._cleaning), add_special_tokens=False).ids
        except ValueError as error:
            raise ClassNameError(f"the bundle's tokenizer cannot encode {text[:40]!r} ({error})") from None
        return ids


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """Turn every error of the library `tokenizers` into ValueError; its panics are no Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(error) from None
        raise


def _growth(normalizer: Any) -> int:
    """Return how many characters a normaliser of the library `tokenizers` makes of one at most."""
    kind = normalizer["type"]
    if kind == "Sequence":
        return math.prod(map(_growth, normalizer["normalizers"]))
    if kind == "Replace":
        return max(1, len(normalizer["content"])) + (normalizer["pattern"].get("String") in (None, ""))
    if kind == "Prepend":
        return 1 + len(normalizer["prepend"])
    if kind == "Precompiled":  # the size of a trie, the trie, and texts that end with a zero byte
        content = base64.b64decode(normalizer["precompiled_charsmap"])
        return max(map(len, content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")))
    return 18 if kind in ("NFKC", "NFKD") else 4


def encode_name(tokenizer: Tokenizer | JsonTokenizer, spec: TokenizerSpec, name: str) -> list[int]:
    """Return the token ids of ``prefix + name + suffix``, at most ``spec.max_name_tokens``, without the end token.

    Underscores are read as spaces, as in training.

    Raises:
        ClassNameError: The name is not text, is empty after cleaning, does not fit, or contains a control token.
    """
    shown = repr(name if len(name) <= 40 else name[:40] + "…")
    if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
        raise ClassNameError(f"class name {shown} is not text in UTF-8")
    if len(name) > _LONGEST_TEXT:
        raise ClassNameError(f"class name {shown} has {len(name)} characters; shorten it")
    name = name.replace("_", " ")
    if not clean(name, spec.clean).strip():
        raise ClassNameError(f"class name {shown} is empty")
    tokens = tokenizer.encode(spec.prefix + name + spec.suffix)
    if len(tokens) > spec.max_name_tokens:
        raise ClassNameError(
            f"class name {shown} is too long: {len(tokens)} tokens, {spec.max_name_tokens} fit; shorten it"
        )
    if spec.end_token in tokens or not tokenizer.reserved.isdisjoint(tokens):
        raise ClassNameError(f"class name {shown} contains {_START}, {_END} or another token that is reserved")
    return tokens


def token_row(spec: TokenizerSpec, tokens: Sequence[int]) -> list[int]:
    """Return a row of the name encoder's input for tokens from `encode_name`."""
    row = [*spec.before, *tokens, spec.end_token]
    return row if spec.form == "prompt" else row + [spec.pad_token] * (spec.context_length - len(row))


def clean(text: str, cleaning: Cleaning = "lower") -> str:
    """Return text repaired, unescaped and with single spaces, which is all that the encoder sees of it.

    All but ``whitespace`` make it lower case; ``canonicalize`` removes ASCII punctuation. ``none`` returns the text.

    Printable ASCII without ``&`` needs neither repair nor unescaping, so most runs never import ftfy.
    """
    if cleaning == "none":
        return text
    if not text.isascii() or not text.isprintable() or "&" in text:
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if cleaning == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if cleaning == "whitespace" else text.lower()


@functools.cache
def _pattern() -> Any:
    import regex

    return regex.compile(_WORDS, regex.IGNORECASE)


def _byte_symbols() -> dict[int, str]:
    """Return a visible character for each byte, in vocabulary order; visible Latin-1 characters stay themselves."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _merge(parts: list[str], first: str, second: str) -> list[str]:
    """Join every ``first`` that is followed by ``second``, from left to right."""
    merged: list[str] = []
    for symbol in parts:
        if merged and symbol == second and merged[-1] == first:
            merged[-1] = first + second
        else:
            merged.append(symbol)
    return merged
