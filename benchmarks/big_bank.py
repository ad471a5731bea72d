"""A bank of a million classes: size of the file, time to open it, memory, time per image, exactness of the top 5.

    python -m benchmarks.big_bank [--classes 1000000] [--dim 512] [--queries 200] [--threads 1 2] [--file FILE]

Rows are random, seeded, of length 1, written in pieces; names are ``class 0`` and so on. Every figure comes from a
process of its own. ``cold`` is after the file was dropped from the system's cache as far as a user can, ``verify``
reads every byte. A query ranks as ``sar-classify`` does: cosines with every class, softmax over all, the best 5. The
alternative is the plain way: the whole product, a full sort. Exact means the same 5 classes in the same order as a
brute force in float64, but for classes whose cosines differ by less than 1e-6. Memory is what the process has to
itself; pages of the mapped file stand beside it, which the system takes back when it needs them. Ends with status 1
where an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import command
from sar_infer.bank import ClassBank
from sar_infer.classify.class_set import ClassSet, build_class_set
from sar_infer.classify.ranking import Scale, rank

Floats = npt.NDArray[np.float32]
SCALE, TOP, BLOCK = 100.0, 5, 65_536
ENCODER = "e" * 64


def main() -> None:
    """Print a table and JSON."""
    options = command.options(
        __doc__,
        classes=1_000_000,
        dim=512,
        queries=(200, "how many are checked against float64"),
        threads=[1, 2],
        repeats=5,
        file=(Path, "keep the bank here, or take it from here"),
        measure=(str, "this alone, here"),
    )
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.file = options.file or Path(folder) / "big.safetensors"
        results = {} if options.file.exists() else {"write": child("write", options, 1)}
        results["file"] = {"classes": options.classes, "MiB": round(options.file.stat().st_size / 2**20)}
        drop_from_cache(options.file)
        results["open, cold"] = child("open", options, 1)
        results["open"] = child("open", options, 1)
        results["verify"] = child("verify", options, 1)
        for threads in options.threads:
            results[f"rank, {threads} threads"] = child("rank", options, threads)
            results[f"plain, {threads} threads"] = child("plain", options, threads)
        results["exact"] = child("exact", options, max(options.threads))
    rows = [(label, ", ".join(f"{name} {value:g}" for name, value in of.items())) for label, of in results.items()]
    machine = {"classes": options.classes, "dim": options.dim, "cores": os.cpu_count()}
    command.tell(command.markdown(("measure", "result"), rows), machine | results)
    command.end(["an answer is wrong"] * (results["exact"]["wrong"] > 0))


def child(measure: str, options: argparse.Namespace, threads: int) -> dict[str, float]:
    """Return one measure from a process of its own, whose BLAS has so many threads."""
    names = ("classes", "dim", "queries", "repeats", "file")
    flags = [argument for name in names for argument in (f"--{name}", getattr(options, name))]
    environment = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    result: dict[str, float] = command.in_own_process(
        "benchmarks.big_bank", "--measure", measure, *flags, environment=environment
    )
    return result


def write(options: argparse.Namespace) -> dict[str, float]:
    """Make the bank, a block of rows at a time."""
    start = time.perf_counter()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.file.parent) as folder:
        rows = np.memmap(Path(folder) / "rows", np.float32, "w+", shape=(options.classes, options.dim))
        for first in range(0, options.classes, BLOCK):
            block = random.standard_normal((min(BLOCK, options.classes - first), options.dim), dtype=np.float32)
            rows[first : first + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
        names = tuple(f"class {number}" for number in range(options.classes))
        ClassBank.of(names, np.asarray(rows), ENCODER).save(options.file)
    return {"seconds": seconds_since(start), **memory()}


def opened(options: argparse.Namespace) -> dict[str, float]:
    """Open the bank and make its class set, as before the first image."""
    start = time.perf_counter()
    classes = class_set(ClassBank.load(options.file, ENCODER))
    return {"seconds": seconds_since(start), "classes": len(classes.names), **memory()}


def verified(options: argparse.Namespace) -> dict[str, float]:
    """Read and check every byte."""
    start = time.perf_counter()
    bank = ClassBank.load(options.file, ENCODER)
    return {"seconds": seconds_since(start), "classes": len(bank.names), **memory()}


def ranked(options: argparse.Namespace) -> dict[str, float]:
    """Time per image, alone and in batches of 16."""
    classes = class_set(ClassBank.load(options.file, ENCODER))
    return per_image(options, lambda rows: rank(rows, classes, Scale(SCALE), TOP))


def plain(options: argparse.Namespace) -> dict[str, float]:
    """The same by the whole product, a softmax and a full sort, on rows that were read before."""
    rows_of_classes = np.array(ClassBank.load(options.file, ENCODER).embeddings)

    def everything(rows: Floats) -> object:
        logits = np.float32(SCALE) * (rows @ rows_of_classes.T)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), np.argsort(-logits, axis=1, kind="stable")[:, :TOP]

    return per_image(options, everything)


def exact(options: argparse.Namespace) -> dict[str, float]:
    """Rank some queries, and again in float64 by brute force."""
    bank = ClassBank.load(options.file, ENCODER)
    classes, same, wrong, error = class_set(bank), 0, 0, 0.0
    for rows in np.array_split(queries(options.queries, options.dim), -(-options.queries // 20)):
        ranking = rank(rows, classes, Scale(SCALE), TOP)
        cosines = np.empty((len(rows), len(bank.names)))
        for first in range(0, len(bank.names), BLOCK):
            cosines[:, first : first + BLOCK] = rows.astype(np.float64) @ bank.embeddings[first : first + BLOCK].T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :TOP]
        mine, theirs = (np.take_along_axis(cosines, columns, axis=1) for columns in (ranking.columns, best))
        same += int((ranking.columns == best).all(axis=1).sum())
        wrong += int((np.abs(mine - theirs) > 1e-6).any(axis=1).sum())
        scores = np.exp(SCALE * mine - np.logaddexp.reduce(SCALE * cosines, axis=1)[:, np.newaxis])
        error = max(error, float(np.abs(ranking.scores / scores - 1).max()))
    return {"queries": options.queries, "same order": same, "wrong": wrong, "largest relative error of a score": error}


def class_set(bank: ClassBank) -> ClassSet:
    """All classes of the bank and no others, which needs no encoder."""
    return build_class_set(bank, {}, False, lambda _: np.empty((0, 0), np.float32))


def queries(count: int, dim: int) -> Floats:
    """Unit rows that stand for images."""
    rows = np.random.default_rng(1).standard_normal((count, dim), dtype=np.float32)
    result: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def per_image(options: argparse.Namespace, work: Callable[[Floats], object]) -> dict[str, float]:
    """Milliseconds, the least of some repeats; the first, which reads the file, does not count."""
    result = {}
    for batch in (1, 16):
        rows, times = queries(batch, options.dim), []
        for _ in range(options.repeats + 1):
            start = time.perf_counter()
            work(rows)
            times.append(time.perf_counter() - start)
        result[f"ms per image in batches of {batch}"] = round(1000 * min(times[1:]) / batch, 2)
    return {**result, **memory()}


def memory() -> dict[str, float]:
    """MiB of this process: its own, and pages of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kinds = {"own MiB": "RssAnon", "mapped MiB": "RssFile"}
    return {name: round(int(status[key].split()[0]) / 1024) for name, key in kinds.items()}


def seconds_since(start: float) -> float:
    """Rounded to milliseconds."""
    return round(time.perf_counter() - start, 3)


def drop_from_cache(file: Path) -> None:
    """Ask the system to forget the content of a file; it may decline."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "write": write,
    "open": opened,
    "verify": verified,
    "rank": ranked,
    "plain": plain,
    "exact": exact,
}

if __name__ == "__main__":
    main()
