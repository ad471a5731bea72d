from __future__ import annotations

import pytest

from sar_infer.classify.class_set import Sources


def test_sources_are_a_sequence() -> None:
    sources = Sources(2, ("extended", "bank"))
    assert list(sources) == ["bank", "bank", "extended", "bank"]
    assert (len(sources), sources[-2], sources[1:3]) == (4, "extended", ["bank", "extended"])
    assert ("extended" in sources, "extended" in Sources(2), "bank" in Sources(0, ("extended",))) == (
        True,
        False,
        False,
    )
    with pytest.raises(IndexError):
        sources[4]
