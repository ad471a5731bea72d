from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from sar_infer.text.tokenizer import Tokenizer
from sar_train.errors import ExportError
from sar_train.export.tokenizer import MERGES, compress, merges_text


def test_has_the_merges_that_clip_uses() -> None:
    lines = merges_text(49_407).decode().splitlines()
    assert lines[0].startswith('"bpe_simple_vocab')
    assert lines[1] == "i n"
    assert len(lines) == 1 + MERGES == 48_895


def test_the_run_time_reads_it_and_encodes_like_open_clip(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bpe.gz"
    path.write_bytes(compress(merges_text(49_407)))
    text = "A golden retriever's 23 friends: café, naïve — 犬"
    assert Tokenizer.open(path).encode(text) == open_clip.get_tokenizer("ViT-B-32").encode(text)


def test_is_the_same_file_every_time() -> None:
    assert compress(b"text") == compress(b"text")
    assert compress(b"text")[4:8] == bytes(4)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ExportError, match="32000"):
        merges_text(32_000)
