"""CLIP's vocabulary as a bundle stores it: a version line and 48,894 merges in a gzip file without a time stamp."""

from __future__ import annotations

import gzip
from importlib.resources import files

from sar_train.errors import ExportError

MERGES = 49_152 - 256 - 2
"""Merges that CLIP uses; open_clip's file holds many more."""


def merges_text(end_token: int) -> bytes:
    """Return the first line of open_clip's vocabulary file and the merges in use, one per line.

    Args:
        end_token: of the tower's tokenizer; token ``512 + r`` is merge ``r``, then come the start and the end token.

    Raises:
        ExportError: the tokenizer has another number of merges.
    """
    if end_token != 512 + MERGES + 1:
        raise ExportError(f"expected a tokenizer with end token {512 + MERGES + 1}, this backbone has {end_token}")
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return b"".join(gzip.decompress(packed).splitlines(keepends=True)[: MERGES + 1])


def compress(text: bytes) -> bytes:
    """Compress with gzip, without a time stamp."""
    return gzip.compress(text, 9, mtime=0)
