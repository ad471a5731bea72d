"""Time a change of a bank file until another process's next answer has it, on bases of 1,000 and 100,000 classes.

    python -m benchmarks.bank_edits [--classes 1000 100000] [--dim 512] [--repeat 5]

One class added, four photos added, one step undone: each is timed from the edit to the ranking of one image by a second
reader of the file, flush of the disk included. Then one image is ranked among all classes again. Medians of
``--repeat``, in milliseconds.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from benchmarks import command
from sar_infer.bank import ClassBank, PhotoSet, add, add_photos, rollback
from sar_infer.classify.class_set import build_class_set
from sar_infer.classify.composer import Composer
from sar_infer.classify.ranking import rank

Floats = npt.NDArray[np.float32]
EDITS: dict[str, Callable[[ClassBank, Floats, int], ClassBank]] = {
    "one class added": lambda bank, rows, n: add(bank, [f"new {n}"], rows[:1]),
    "four photos added": lambda bank, rows, n: add_photos(bank, {f"class {n}": photos(rows[1:], n)}),
    "one step undone": lambda bank, rows, n: rollback(bank, bank.log.line[-2]),
}


def unit_rows(count: int, dim: int, seed: int) -> Floats:
    """Return unit embeddings (count, dim)."""
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def photos(rows: Floats, number: int) -> PhotoSet:
    """Return photos with these embeddings."""
    return PhotoSet.of([hashlib.sha256(f"{number} {one}".encode()).digest() for one in range(len(rows))], rows)


def milliseconds(classes: int, dim: int, repeat: int) -> dict[str, float]:
    """Return the median of each row of the table."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base, file = Path(folder, "base.safetensors"), Path(folder, "bank.safetensors")
        ClassBank.of([f"class {n}" for n in range(classes)], unit_rows(classes, dim, 0), "e" * 64).save(base)
        writer, reader = (ClassBank.load(base).shared(base) for _ in range(2))
        composer, image = Composer(None, reader, 20.0), unit_rows(1, dim, 1)

        def answer(bank: ClassBank) -> None:
            rank(image, build_class_set(bank, {}, False, lambda _: image[:0], composer, {}), 5)

        answer(reader)
        writer.lookup.name("class 1")
        bank = writer
        for number in range(repeat):
            rows = unit_rows(5, dim, number)
            for name, edit in EDITS.items():
                start = time.perf_counter()
                edit(bank, rows, number).save(file)
                seen = ClassBank.load(file, base=reader)
                answer(seen)
                times.setdefault(name, []).append(time.perf_counter() - start)
                bank = ClassBank.load(file, base=writer)
            start = time.perf_counter()
            answer(seen)
            times.setdefault("one image ranked", []).append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    options = command.options(__doc__, classes=[1000, 100_000], dim=512, repeat=5)
    for classes in options.classes:
        for name, value in milliseconds(classes, options.dim, options.repeat).items():
            print(f"{classes:>9,} classes  {name:<18} {value:7.1f} ms", flush=True)


if __name__ == "__main__":
    main()
