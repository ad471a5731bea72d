"""How a class name becomes a text tower's input, read from ``tokenizer.json`` and the configurations beside it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sar_infer.bundle.checks import check_numbers
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, library_errors
from sar_train.errors import ConfigError
from sar_train.export.importing.sources import Towers, section

_SAMPLES = ("A photo of a café's CAT, isn't it?", "12½ dogs;  don't say 日本", "x" * 40, "the we'll I'd've 3rd")
"""CLIP's tokenizer and a `tokenizer.json` with its merges must agree on them."""
MASK = "attention_mask"
NO_TOKEN = -1
_VERSION = b"#version: 0.2\n"


def read_tokenizer(towers: Towers, template: str, length: int) -> tuple[bytes, TokenizerSpec, bool]:
    """Return the vocabulary to store, how names become tokens, and whether a configuration states the padding.

    Args:
        towers: Which files.
        template: Text with ``{}`` for the name.
        length: Positions of the text tower.

    Raises:
        ConfigError: A configuration is not understood, or a bundle cannot state it.
        BundleError: The tokenizer is damaged, or takes more or fewer positions than a bundle may have.
    """
    import tokenizers

    path, content = towers.texts.get(towers.tokenizer), towers.texts.json(towers.tokenizer)
    settings = _settings(towers)
    JsonTokenizer.open(path, "none")  # rejects one that is damaged
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if [settings.get("padding_side", "right"), padding.get("direction", "right")] != ["right"] * 2:
        raise ConfigError(f"{path}: pads at the left; expected padding at the right")
    if settings.get("do_lower_case") and "lowercase" not in json.dumps(content.get("normalizer")).lower():
        steps = [tokenizers.normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)
    try:
        with library_errors():
            encoding = tokenizer.encode("a")
            samples = [tokenizer.encode(text, add_special_tokens=False).ids for text in _SAMPLES]
    except ValueError as error:
        raise ConfigError(f"{path}: the library tokenizers cannot use it ({error})") from None
    before, end = _special_tokens(encoding, path)
    merges = _clip_merges(content, samples, end)
    pad, cleaning = _padding(tokenizer, settings, padding), "none"
    config = towers.texts.json(towers.config, optional=True)
    if "text_cfg" in config:  # open_clip's form
        text_config = section(config, "text_cfg")
        cleaning = _cleaning(text_config)
        pad = pad if "hf_tokenizer_name" in text_config else 0  # open_clip's tokenizer of CLIP pads with 0
    kind, vocabulary = "tokenizer.json", tokenizer.to_str().encode()
    if merges:
        kind, cleaning, vocabulary = "clip-bpe", "lower", merges
    prefix, suffix = template.split("{}")
    spec = TokenizerSpec(
        kind=kind,  # type: ignore[arg-type]
        context_length=length,
        n_prefix=len(before),
        suffix=suffix,
        end_token=end,
        max_name_tokens=length - len(before) - 1,
        form="template",
        prefix=prefix,
        before=before,
        pad_token=pad or 0,
        clean=cleaning,  # type: ignore[arg-type]
    )
    check_numbers(str(path), None, spec)
    return vocabulary, spec, pad is not None


def takes_mask(towers: Towers) -> bool:
    """Return whether the tower's mask hides the padding: not where the tokenizer is configured to make no mask."""
    names = _settings(towers).get("model_input_names", [MASK])
    return not isinstance(names, list) or MASK in names


def _settings(towers: Towers) -> dict[str, Any]:
    name = PurePosixPath(towers.tokenizer).with_name("tokenizer_config.json").as_posix()
    return towers.texts.json(name, optional=True)


def _special_tokens(encoding: Any, path: Path) -> tuple[tuple[int, ...], int]:
    """Return the ids before a text, and that of the one token that ends it."""
    marked = [*zip(encoding.ids, encoding.special_tokens_mask, strict=True)]
    before = tuple(token for token, _ in itertools.takewhile(lambda pair: pair[1], marked))
    after = [token for token, _ in itertools.takewhile(lambda pair: pair[1], reversed(marked))]
    if len(after) != 1 or len(before) == len(marked):
        raise ConfigError(f"{path}: expected one token that ends a text, got {len(after)}")
    return before, after[0]


def _padding(tokenizer: Any, settings: Mapping[str, Any], padding: Mapping[str, Any]) -> int | None:
    word = settings.get("pad_token")
    if isinstance(word, dict):
        word = word.get("content")
    if word is None:
        return padding.get("pad_id")
    token: int | None = tokenizer.get_vocab().get(word) if isinstance(word, str) else None
    if token is None:
        raise ConfigError(f"tokenizer_config.json: pad_token {word!r:.80} is not in the vocabulary")
    return token


def _cleaning(config: Mapping[str, Any]) -> str:
    """Return how open_clip cleans a text, from ``text_cfg`` of its configuration."""
    settings = section(config, "tokenizer_kwargs")
    if other := sorted(settings.keys() - {"clean"}):
        raise ConfigError(f"config.json: tokenizer_kwargs: key {other[0]!r:.80} is not understood")
    cleaning = settings.get("clean", "whitespace" if "hf_tokenizer_name" in config else "lower")
    if cleaning not in ("whitespace", "lower", "canonicalize"):
        raise ConfigError(f"config.json: tokenizer_kwargs: clean {cleaning!r:.80} is not understood")
    return str(cleaning)


def _clip_merges(content: Mapping[str, Any], samples: Sequence[list[int]], end: int) -> bytes | None:
    """Return the merges of CLIP's own tokenizer as a bundle stores them; None if this is another one.

    Args:
        content: Of ``tokenizer.json``.
        samples: The ids of `_SAMPLES`, without special tokens.
        end: The end token.
    """
    model = content.get("model") or {}
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges") or []]
    if model.get("end_of_word_suffix") != "</w>" or end != 512 + len(pairs) + 1:
        return None
    own = Tokenizer(pairs)
    if [own.encode(text) for text in _SAMPLES] != list(samples):
        return None
    return _VERSION + "".join(f"{pair}\n" for pair in pairs).encode()
