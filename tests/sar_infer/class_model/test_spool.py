"""Embeddings of photos, in memory while they are few and on disk beyond that."""

from __future__ import annotations

import numpy as np
import pytest

from sar_infer.class_model import spool
from sar_infer.class_model.spool import FeatureSpool
from sar_infer.errors import WriteError

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


def pieces() -> list[tuple[list[str], np.ndarray]]:
    return [([f"photo {i}", f"photo\n{i + 1}"], ROWS[i : i + 2]) for i in range(0, 10, 2)]


@pytest.mark.parametrize("most", [1, 3, 4, 10, 100])
def test_what_was_added_is_read_in_order(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", most)
    with FeatureSpool(4, pieces()) as features:
        np.testing.assert_array_equal(features.rows, ROWS)
        assert [*features.keys()] == [key for keys, _ in pieces() for key in keys]
        assert len(features) == 10
    with FeatureSpool(4) as nothing:
        assert (nothing.rows.shape, [*nothing.keys()]) == ((0, 4), [])


def test_no_file_while_they_are_few_and_a_full_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    monkeypatch.setattr(spool.tempfile, "tempdir", "/the/folder")
    FeatureSpool(4, pieces()).close()
    monkeypatch.setattr(spool, "IN_MEMORY", 9)
    with pytest.raises(WriteError, match=r"^/the/folder: .*10 photos \(No space left on device\); set TMPDIR"):
        FeatureSpool(4, pieces())
