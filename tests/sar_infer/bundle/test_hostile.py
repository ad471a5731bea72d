"""A few mutations of every kind in this process; ``benchmarks/hostile.py`` tries thousands in limited ones."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support import hostile_graphs  # noqa: F401 - registers its mutations
from support.mutations import MUTATIONS
from support.rich_bundle import write_rich_bundle
from support.verdicts import answers, bank_verdict, command_verdict, verdict

from sar_infer.bank import ClassBank
from sar_infer.bundle.manifest import BANK

CASES = (range(3), pytest.param(range(3, 7), marks=pytest.mark.nightly))
"""Seeds of each kind; they are fixed, so that a fault stays one."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundle that is changed, and another that lends files."""
    folder = tmp_path_factory.mktemp("hostile")
    return write_rich_bundle(folder / "first"), write_rich_bundle(folder / "other", ["cat", "dog", "a horse"])


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize("seeds", CASES)
def test_a_mutated_bundle_is_refused_in_one_line_or_answers_soundly(
    kind: str, seeds: range, sound: tuple[Path, Path], tmp_path: Path
) -> None:
    mutation, banks = MUTATIONS[kind], [ClassBank.load(path / BANK) for path in sound]
    expected = answers(sound[0])
    outcomes = set()
    for seed in seeds:
        folder = tmp_path / str(seed) / "bundle"
        shutil.copytree(sound[0], folder)
        done = mutation.change(folder, sound[1], random.Random(f"{kind} {seed}"))
        try:
            outcomes.add(verdict(folder, expected, mutation.sealed))
            bank_verdict(folder / BANK, banks, mutation.sealed)
            command_verdict(folder, sound[0])
        except Exception as error:
            raise AssertionError(f"seed {seed}: {done}") from error
    assert "refused" in outcomes


def test_the_verdict_notices_what_it_is_for(sound: tuple[Path, Path]) -> None:
    expected = answers(sound[0])
    assert verdict(sound[0], expected, sealed=False) == "same"
    with pytest.raises(AssertionError, match="other answers"):
        verdict(sound[1], expected, sealed=False)
    assert verdict(sound[1], expected, sealed=True) == "sound"
    with pytest.raises(AssertionError, match="other names"):
        bank_verdict(sound[1] / BANK, [ClassBank.load(sound[0] / BANK)], sealed=False)
