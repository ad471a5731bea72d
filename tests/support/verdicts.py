"""What a mutated bundle or bank may end in: refused in one line, the same answers, or sound ones where digests fit."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import BANK
from sar_infer.cli import bank as sar_bank
from sar_infer.cli import bundle as sar_bundle
from sar_infer.cli import classify
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.errors import SarInferError

Answers = tuple[tuple[str, float], ...]
"""Labels and scores, those of every question in a row."""
NEW_NAME = "something new"
_LONGEST_MESSAGE = 2000


def picture() -> np.ndarray:
    """What every bundle is asked about: smooth colours, so that rounding decides nothing."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([4 * columns % 256, 5 * rows, 200 - 2 * rows], axis=2).astype(np.uint8)


def answers(folder: Path) -> Answers:
    """What a bundle says of the picture by its own classes, which a head may have a part in, and with a new name."""
    bundle, found = open_bundle(folder), []
    known = bundle.manifest
    for precision in ("fp32", *sorted(known.precisions)):
        classifier = Classifier(bundle, device="cpu", threads=1, precision=precision, cache=EmbeddingCache())  # type: ignore[arg-type]
        found += [*classifier.classify(picture(), explain=True), *classifier.classify(picture(), [NEW_NAME])]
        if known.conformal:
            asked: dict[str, Any] = {"only": True, "coverage": 0.9, "unknown": "energy"}
            found += classifier.classify(picture(), known.calibrated, **asked)
    assert all(result.error is None for result in found), f"the picture was refused: {found}"
    return tuple((answer.label, answer.score) for result in found for answer in result.predictions)


def verdict(folder: Path, expected: Answers, sealed: bool) -> str:
    """``refused``, ``same`` answers, or, where digests fit, ``sound`` ones.

    Raises:
        AssertionError: answers that no sound bundle gives, or a message that is not one line.
        Exception: whatever else came instead of a SarInferError.
    """
    try:
        found = answers(folder)
    except SarInferError as error:
        message = str(error)
        assert message.isprintable() and 0 < len(message) <= _LONGEST_MESSAGE, f"not one short line: {message[:3000]!r}"
        return "refused"
    if [label for label, _ in found] == [label for label, _ in expected] and np.allclose(
        [score for _, score in found], [score for _, score in expected], rtol=0, atol=1e-6
    ):
        return "same"
    assert sealed, f"accepted with other answers: {found}, not {expected}"
    assert all(math.isfinite(score) and 0 <= score <= 1 for _, score in found), f"no scores: {found}"
    return "sound"


def bank_verdict(path: Path, known: Sequence[ClassBank], sealed: bool) -> str:
    """The same of a bank file by itself; ``same`` where it is one of those known."""
    try:
        ClassBank.load(path)
        bank = ClassBank.verify(path)
    except SarInferError as error:
        message = str(error)
        assert message.isprintable() and 0 < len(message) <= _LONGEST_MESSAGE, f"not one short line: {message[:3000]!r}"
        return "refused"
    if bank.content_digest in {sound.content_digest for sound in known}:
        return "same"
    assert sealed, "accepted with other names or rows"
    lengths = np.linalg.norm(bank.embeddings.astype(np.float64), axis=1)
    assert np.allclose(lengths, 1, atol=1e-2) and len(set(bank.names)) == len(bank.names), "unsound, and accepted"
    return "sound"


def command_verdict(folder: Path, sound: Path) -> None:
    """Raise where a command ends in another way than by printing, or by one line that says why not.

    Args:
        folder: The mutated bundle.
        sound: What it was made from.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        for command, arguments in _calls(folder, sound, Path(place)):
            outcome = CliRunner().invoke(command, arguments)
            if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
                raise outcome.exception
            assert outcome.exit_code in (0, 1, 2), f"{arguments[0]} ended with {outcome.exit_code}"
            shown = outcome.output.replace("\n", "").replace("\t", "")
            assert shown.isprintable(), f"{arguments[0]} printed control characters: {shown[:1000]!r}"


def _calls(folder: Path, sound: Path, place: Path) -> list[tuple[click.Command, list[str]]]:
    """Commands on the mutated bundle, its bank, and a copy of that which may be changed."""
    copy = place / "copy.safetensors"
    if (folder / BANK).is_file():
        shutil.copyfile(folder / BANK, copy)
    bank, edited = ([str(path), "--bundle", str(sound)] for path in (folder / BANK, copy))
    calls = (
        ["verify", *bank],
        ["list", "--long", *bank],
        ["history", *bank],
        ["nearest", *bank, NEW_NAME],
        ["diff", *bank, str(sound / BANK)],
        ["merge", str(place / "ours"), "--bundle", str(sound), str(copy), "--conflict", "take"],
        ["rollback", *edited, "--steps", "1"],
        ["rollback", *edited, "--to", "0"],
    )
    freeze = ["freeze", str(sound), "--bank", str(folder / BANK), "--out", str(place / "frozen")]
    others = [(classify.main, ["--info", "--bundle", str(folder)]), (sar_bundle.main, freeze)]
    return [*others, *((sar_bank.main, call) for call in calls)]
