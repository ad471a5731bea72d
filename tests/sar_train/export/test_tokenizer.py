from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from sar_infer.text.tokenizer import Tokenizer
from sar_train.errors import ExportError
from sar_train.export.tokenizer import compress, merges_text


def test_the_run_time_reads_it_and_encodes_like_open_clip(tmp_path: Path) -> None:
    lines = merges_text(49_407).decode().splitlines()
    assert lines[0].startswith('"bpe_simple_vocab')
    assert (lines[1], len(lines)) == ("i n", 48_895)
    path = tmp_path / "tokenizer.bpe.gz"
    path.write_bytes(compress(merges_text(49_407)))
    assert path.read_bytes()[4:8] == bytes(4)  # no time, so that it is the same file every time
    text = "A golden retriever's 23 friends: café, naïve — 犬"
    assert Tokenizer.open(path).encode(text) == open_clip.get_tokenizer("ViT-B-32").encode(text)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ExportError, match="32000"):
        merges_text(32_000)
