from __future__ import annotations

import random
import shutil

import pytest
from support.hostile_jpegs import mutated, traced_scans

from sar_infer.errors import ImageError
from sar_infer.jpeg import count_scans


@pytest.mark.skipif(not shutil.which("djpeg"), reason="needs djpeg (Debian: libjpeg-turbo-progs)")
@pytest.mark.parametrize("seed", range(4))
def test_no_scan_that_libjpeg_starts_is_missed(seed: int) -> None:
    several = 0
    for number in range(100):
        data = mutated(random.Random(f"{seed} {number}"))
        traced = traced_scans(data)
        several += traced > 1
        try:
            counted = count_scans(data)
        except ImageError:
            continue
        assert counted >= traced, f"{seed} {number}"
    assert several > 30
