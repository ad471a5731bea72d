"""Make smaller graphs, judge each beside the float32 one, and say of each whether it may stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sar_infer.artefact.bundle import Bundle
from sar_infer.artefact.manifest import Precision, Variant
from sar_infer.errors import BundleError
from sar_train.export.compact import write_graph
from sar_train.export.precision.candidates import smaller
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.plain import plain
from sar_train.export.precision.samples import Photos
from sar_train.export.precision.sides import Images, Names, Side
from sar_train.export.precision.timing import speedup
from sar_train.export.precision.trial import opens

ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """What came of one smaller graph.

    Attributes:
        precision: of ``artefact.PRECISIONS``.
        encoder: whose.
        variant: its figures; None where there is no graph to judge.
        failures: why it may not stay; empty where it may.
    """

    precision: str
    encoder: Literal["image", "name"]
    variant: Variant | None
    failures: tuple[str, ...]


def make(
    bundle: Bundle, folder: Path, gates: Mapping[str, Gate], photos: Photos, tell: ProgressCallback
) -> list[Attempt]:
    """Make and judge the smaller graphs of both encoders.

    Args:
        bundle: whose encoders.
        folder: where graphs are written under the names of their variants; those that fail are taken away again.
        gates: bounds by precision; a graph of each encoder is tried for every one.
        photos: to calibrate and to judge with.
        tell: is called with a line of progress now and then.

    Raises:
        ImageError: a photo cannot be read.
    """
    tell(f"encoding {len(photos.judging):,} photos in float32")
    images = Images(bundle, photos)
    sides: tuple[Side, ...] = (images, Names(bundle, images.reference))
    return [
        _attempt(bundle, folder, precision, gate, side, tell) for precision, gate in gates.items() for side in sides
    ]


def kept(attempts: Sequence[Attempt]) -> dict[str, Precision]:
    """The graphs that may stay, by precision."""
    passed = {(a.precision, a.encoder): a.variant for a in attempts if not a.failures}
    names = dict.fromkeys(precision for precision, _ in passed)
    return {name: Precision(passed.get((name, "image")), passed.get((name, "name"))) for name in names}


def _attempt(bundle: Bundle, folder: Path, precision: str, gate: Gate, side: Side, tell: ProgressCallback) -> Attempt:
    tell(f"making the {side.encoder} encoder in {precision}")
    source, path = bundle.path / side.source, folder / f"{side.encoder}_encoder.{precision}.onnx"
    path.unlink(missing_ok=True)
    made = smaller(plain(source), precision, side.calibration, tell)
    if made is None:
        return Attempt(precision, side.encoder, None, ("it has nothing that could be made smaller",))
    write_graph(path, made.model)
    if not opens(path):
        path.unlink()
        return Attempt(precision, side.encoder, None, ("onnxruntime does not open it",))
    tell("  judging it")
    try:
        (figures, notes, failures), probe = side.judged(path, gate), side.probe_cosine(path)
    except BundleError:
        path.unlink()
        return Attempt(precision, side.encoder, None, ("it gives numbers that are not finite",))
    faster = speedup(source, path, side.one)
    failures = [*gate.failures(figures, faster), *failures]
    variant = Variant(
        file=path.name,
        method=made.method,
        samples=figures.samples,
        min_cosine=figures.min_cosine,
        mean_cosine=figures.mean_cosine,
        top1_agreement=figures.top1_agreement,
        speedup=round(faster, 2),
        probe_cosine=probe,
        notes=(*made.notes, *notes),
    )
    if failures:
        path.unlink()
    return Attempt(precision, side.encoder, variant, tuple(failures))
