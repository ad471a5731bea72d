"""Make smaller graphs, judge each beside the float32 one, and keep those that pass."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import Precision, Variant
from sar_infer.bundle_check.comparison import open_graph
from sar_infer.encoders.processor import processor
from sar_infer.encoders.sessions import open_session
from sar_infer.errors import BundleError
from sar_train.data.progress import ProgressCallback
from sar_train.export.compact import write_graph
from sar_train.export.precision.float16 import cast
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.int8 import dynamic, static
from sar_train.export.precision.plain import plain
from sar_train.export.precision.samples import PhotoSamples, batches
from sar_train.export.precision.sides import ImageSide, NameSide, Side


@dataclass(frozen=True)
class Attempt:
    """The result for one smaller graph.

    Attributes:
        precision: ``fp16`` or ``int8``.
        encoder: which of the two it replaces.
        variant: its figures; None if there was no graph to judge.
        failures: why it is left out; empty if it is kept.
    """

    precision: str
    encoder: Literal["image", "name"]
    variant: Variant | None
    failures: tuple[str, ...]


def make(
    bundle: Bundle, folder: Path, gates: Mapping[str, Gate], photos: PhotoSamples, tell: ProgressCallback
) -> list[Attempt]:
    """Make and judge the smaller graphs of both encoders.

    Args:
        bundle: its encoders are made smaller.
        folder: receives the graphs; those that fail are deleted again.
        gates: bounds by precision; a graph of each encoder is tried for every one.
        photos: to calibrate and to evaluate with.
        tell: called with lines of progress.

    Raises:
        ImageError: a photo cannot be read.
    """
    tell(f"encoding {len(photos.judging):,} photos in float32")
    images = ImageSide(bundle, photos)
    sides: tuple[Side, ...] = (images, NameSide(bundle, images.reference))
    return [
        _attempt(bundle, folder, precision, gate, side, tell) for precision, gate in gates.items() for side in sides
    ]


def passed(attempts: Sequence[Attempt]) -> dict[str, Precision]:
    """Return the graphs that passed, by precision."""
    graphs = {(a.precision, a.encoder): a.variant for a in attempts if not a.failures}
    names = dict.fromkeys(precision for precision, _ in graphs)
    return {name: Precision(graphs.get((name, "image")), graphs.get((name, "name"))) for name in names}


def _attempt(bundle: Bundle, folder: Path, precision: str, gate: Gate, side: Side, tell: ProgressCallback) -> Attempt:
    tell(f"making the {side.encoder} encoder in {precision}")
    source, path = bundle.path / side.source, folder / f"{side.encoder}_encoder.{precision}.onnx"
    path.unlink(missing_ok=True)
    candidate = smaller(plain(source), precision, side.calibration, tell)
    if candidate is None:
        return Attempt(precision, side.encoder, None, ("it has nothing that could be made smaller",))
    write_graph(path, candidate.model)
    if not opens(path):
        path.unlink()
        return Attempt(precision, side.encoder, None, ("onnxruntime does not open it",))
    tell("  judging it")
    try:
        (figures, notes, failures), stored = side.judged(path, gate), side.self_test_cosine(path)
    except BundleError:
        path.unlink()
        return Attempt(precision, side.encoder, None, ("it gives numbers that are not finite",))
    faster = speedup(source, path, side.one)
    failures = [*gate.failures(figures, faster), *failures]
    variant = Variant(
        file=path.name,
        method=candidate.method,
        samples=figures.samples,
        min_cosine=figures.min_cosine,
        mean_cosine=figures.mean_cosine,
        top1_agreement=figures.top1_agreement,
        speedup=round(faster, 2),
        self_test_cosine=stored,
        notes=(*candidate.notes, *notes),
        processor=processor(),
    )
    if failures:
        path.unlink()
    return Attempt(precision, side.encoder, variant, tuple(failures))


FIRST = (1, 2, 4)
"""How many of the first convolutions stay in float32; tried in turn."""
ENOUGH = 0.998
"""Mean cosine on the calibration images that ends the search for layers to keep in float32."""


@dataclass(frozen=True)
class Candidate:
    """A graph that has not been judged yet."""

    model: onnx.ModelProto
    method: Literal["cast", "dynamic", "static"]
    notes: tuple[str, ...] = ()


def smaller(
    model: onnx.ModelProto, precision: str, calibration: Sequence[Floats], tell: ProgressCallback
) -> Candidate | None:
    """Return the smaller form that suits the network.

    Transformers get INT8 with scales found at run time; networks whose weights are mostly convolutions get calibrated
    ones.

    Args:
        model: as ``plain`` returns it.
        precision: ``fp16`` or ``int8``.
        calibration: photos for the image encoder, each (3, size, size); none for the name encoder.
        tell: called with lines of progress.

    Returns:
        The candidate; None if nothing in the network can be made smaller.
    """
    if precision == "fp16":
        return Candidate(cast(model), "cast")
    if calibration and is_convolutional(model):
        return _calibrated(model, calibration, tell)
    quantised = dynamic(model)
    return None if quantised is None else Candidate(quantised, "dynamic", ("weights of matrix products",))


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Say whether convolutions hold more weights than matrix products."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}

    def weights(*kinds: str) -> int:
        return sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type in kinds)

    return weights("Conv") > weights("MatMul", "Gemm")


def _calibrated(model: onnx.ModelProto, calibration: Sequence[Floats], tell: ProgressCallback) -> Candidate | None:
    """Return the first attempt that comes near enough on the calibration images, else the nearest."""
    reference, best, nearest = _rows(model, calibration), None, -np.inf
    for first in FIRST:
        quantised = static(model, calibration, first)
        if quantised is None:
            break
        cosine = float((_rows(quantised, calibration) * reference).sum(1).mean())
        tell(f"  int8 with the first {first} convolutions in float32: mean cosine {cosine:.5f} on calibration photos")
        if cosine > nearest:
            note = f"{len(calibration)} calibration photos; the first {first} convolutions in float32"
            best, nearest = Candidate(quantised, "static", (note, "biases corrected")), cosine
        if cosine >= ENOUGH:
            break
    return best


def _rows(model: onnx.ModelProto, pixels: Sequence[Floats]) -> Floats:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        write_graph(path, model)
        graph = open_graph(path)
        return np.concatenate([graph(batch) for batch in batches(pixels)])


_LOOK = """
import pathlib, sys
from sar_infer.encoders.sessions import open_session
open_session(pathlib.Path(sys.argv[1]), "cpu")
"""


def opens(path: Path) -> bool:
    """Say whether onnxruntime opens a graph without crashing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    look = [sys.executable, "-c", _LOOK, str(path)]
    return subprocess.run(look, capture_output=True, env=environment, check=False).returncode == 0  # noqa: S603


ROUNDS = 15


def speedup(reference: Path, path: Path, batch: npt.NDArray[Any]) -> float:
    """Return how many times as fast one graph is as another, on one thread: medians of alternating runs.

    The thread's own time is measured, so that other programs disturb little.

    Args:
        reference: the graph to compare with.
        path: the graph to judge.
        batch: the input of both.
    """
    sessions = [open_session(graph, "cpu", 1) for graph in (reference, path)]
    (source,) = sessions[0].get_inputs()
    timings: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for session, seconds in zip(sessions, timings, strict=True):
            start = time.thread_time()
            session.run(None, {source.name: batch})
            seconds.append(time.thread_time() - start)
    slow, fast = (float(np.median(seconds[1:])) for seconds in timings)  # the first runs are warm-up
    return slow / fast
