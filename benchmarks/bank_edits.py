"""Time a change of a bank, and until others see it, on bases of a thousand to a million classes.

    python -m benchmarks.bank_edits [--classes 1000 100000 1000000] [--dim 512] [--repeat 5]

For each base, the bank of a bundle, a file on it is changed as ``sar-bank`` and ``sar-serve`` change it: one class
added, four photos added, one step undone; each is timed until it is on the disk (``edit``), and from there until a
second process's reader has replayed it (``seen``). Then: opening the base, the first look-up of a name, one image
ranked among all classes, and 100,000 classes added in one step, then one more. Medians of ``--repeat``, in
milliseconds; on a busy machine they are too high. Ends with a line of JSON.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from benchmarks import command
from benchmarks.bank_kill import example_bundle
from sar_infer.bank import ClassBank, PhotoSet, add, add_photos, rollback
from sar_infer.bundle.bank_file import BankFile
from sar_infer.bundle.bundle import Bundle
from sar_infer.classify.class_set import build_class_set
from sar_infer.classify.ranking import Scale, rank

_MANY = 100_000
Floats = npt.NDArray[np.float32]


def unit_rows(count: int, dim: int, seed: int) -> Floats:
    """Return rows (count, dim) of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return milliseconds and the result."""
    start = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - start), result


class Trial:
    """One base with a bank file on it."""

    def __init__(self, folder: Path, classes: int, dim: int) -> None:
        self.dim, self.times = dim, dict[str, list[float]]()
        path = folder / f"{classes}.safetensors"
        ClassBank.of(tuple(f"class {n}" for n in range(classes)), unit_rows(classes, dim, 0), "e" * 64).save(path)
        bundle = example_bundle(1, dim)
        opening, base = timed(lambda: ClassBank.load(path).shared(path))
        self.bundle = Bundle(bundle.path, bundle.manifest, base)
        self._note("open the base", opening)
        self._note("first look-up", timed(lambda: base.lookup.name("class 7"))[0])
        self.writer = BankFile(folder / f"{classes}.bank.safetensors", self.bundle)
        self.reader = BankFile(self.writer.path, self.bundle)

    def change(self, label: str, edit: Callable[[ClassBank], ClassBank]) -> None:
        """Make a change, and let the reader see it."""

        def write() -> None:
            self.writer.save(edit(self.writer.look()))

        self._note(f"{label}: edit", timed(write)[0])
        self._note(f"{label}: seen", timed(self.reader.look)[0])
        if self.reader.bank.content_digest != self.writer.bank.content_digest:
            raise SystemExit(f"{label}: the reader has another state")

    def run(self, repeat: int) -> dict[str, float]:
        """Return the median of each time."""
        none = np.empty((0, self.dim), np.float32)
        for number in range(repeat):
            row = unit_rows(1, self.dim, number + 1)
            photos = PhotoSet.of(
                np.random.default_rng(number).integers(0, 256, (4, 32), np.uint8), unit_rows(4, self.dim, 9)
            )
            sets = {f"class {number}": photos}
            self.change("add a class", partial(add, phrases=[f"new {number}"], embeddings=row))
            self.change("add 4 photos", partial(add_photos, photos=sets))
            self.change("undo a step", lambda bank: rollback(bank, bank.log.last - 1))
            classes = build_class_set(self.reader.bank, {}, False, lambda _: none)
            self._note("rank an image", timed(partial(rank, row, classes, Scale(100.0), 5))[0])
        many = unit_rows(_MANY, self.dim, 99)
        self.change(f"add {_MANY:,}", lambda bank: add(bank, [f"many {n}" for n in range(_MANY)], many))
        self.change("one more", lambda bank: add(bank, ["one more"], unit_rows(1, self.dim, 98)))
        return {label: statistics.median(values) for label, values in self.times.items()}

    def _note(self, label: str, milliseconds: float) -> None:
        self.times.setdefault(label, []).append(milliseconds)


def main() -> None:
    """Print a table and JSON."""
    options = command.options(__doc__, classes=[1000, 100_000, 1_000_000], dim=512, repeat=5)
    milliseconds: dict[str, dict[str, float]] = {}
    for classes in options.classes:
        with tempfile.TemporaryDirectory() as folder:
            milliseconds[f"{classes:,}"] = Trial(Path(folder), classes, options.dim).run(options.repeat)
    labels = next(iter(milliseconds.values()))
    rows = [(label, *(f"{times[label]:.1f}" for times in milliseconds.values())) for label in labels]
    command.tell(
        command.markdown(("milliseconds", *milliseconds), rows), {**vars(options), "milliseconds": milliseconds}
    )


if __name__ == "__main__":
    main()
