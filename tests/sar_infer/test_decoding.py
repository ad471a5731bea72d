from __future__ import annotations

import threading

import numpy as np
from support.bundles import PREPROCESS

from sar_infer.decoding import decode_batches
from sar_infer.errors import ImageError
from sar_infer.profile import Profile


def picture(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_order_batches_and_errors() -> None:
    sources = [picture(0), b"bad", picture(255), picture(0), b""]
    batches = list(decode_batches(sources, PREPROCESS, 2, Profile()))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    names, items = zip(*[item for batch in batches for item in batch], strict=True)
    assert names == tuple(f"image[{i}]" for i in range(5))
    assert [isinstance(item, ImageError) for item in items] == [False, True, False, False, True]
    assert items[0].max() < items[2].min()


def test_nothing() -> None:
    assert list(decode_batches([], PREPROCESS, 4, Profile())) == []


def test_no_more_than_two_batches_are_held() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield picture(1)

    batches = decode_batches(endless(), PREPROCESS, 3, Profile())
    next(batches)
    assert taken == 6
    next(batches)
    assert taken == 9
    batches.close()


def test_time_is_counted_and_threads_end() -> None:
    profile = Profile()
    before = threading.active_count()
    list(decode_batches([picture(1)] * 9, PREPROCESS, 4, profile))
    assert profile.seconds["decode"] > 0
    assert threading.active_count() == before
