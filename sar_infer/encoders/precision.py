"""The choice among a bundle's graphs: float32, or a smaller one that passed its gate."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Manifest, Precision, Variant
from sar_infer.encoders.sessions import Device, expects_cuda
from sar_infer.errors import InputError

PrecisionChoice = Literal["fp32", "fp16", "int8", "auto"]
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Choice:
    """The graphs that run.

    Attributes:
        precision: ``fp32``, or a key of ``Manifest.precisions``.
        image: File of the image encoder.
        name: File of the name encoder.
        names_by: Key for caches of name embeddings: the encoder's digest, followed by that of the graph file if it is
            a smaller one.
        variant: Figures of the image encoder; None for the float32 graph.
    """

    precision: str
    image: str
    name: str
    names_by: str
    variant: Variant | None = None


def choose(manifest: Manifest, asked: PrecisionChoice, device: Device) -> Choice:
    """Return the graphs for a precision; an encoder that has none in this precision runs in float32.

    ``auto`` takes float16 on a GPU and INT8 on a CPU that has instructions for it, if the bundle has such an image
    encoder (and INT8 was faster when it was made); otherwise float32.

    Raises:
        InputError: There is no such precision, or the bundle has nothing in it.
    """
    if asked not in get_args(PrecisionChoice):
        raise InputError(f"precision: expected {', '.join(get_args(PrecisionChoice))}, got {asked!r}")
    precision = _automatic(manifest, device) if asked == "auto" else asked
    graphs = manifest.precisions.get(precision)
    if graphs is None and precision != "fp32":
        has = ", ".join(["fp32", *sorted(manifest.precisions)])
        raise InputError(
            f"precision {precision}: this bundle has {has}; "
            f"sar-bundle shrink BUNDLE --precision {precision} --photos FOLDER --out NEW adds it"
        )
    image, name = (graphs or Precision()).image, (graphs or Precision()).name
    digest = manifest.encoder_digest
    return Choice(
        precision,
        image.file if image else IMAGE_ENCODER,
        name.file if name else NAME_ENCODER,
        f"{digest} {manifest.files[name.file].sha256}" if name else digest,
        image,
    )


def _automatic(manifest: Manifest, device: Device) -> str:
    images = {name: graphs.image for name, graphs in manifest.precisions.items() if graphs.image}
    if not images:
        return "fp32"
    if expects_cuda(device):
        return "fp16" if "fp16" in images else "fp32"
    int8 = images.get("int8")
    return "int8" if int8 and int8.speedup > 1 and _multiplies_bytes() else "fp32"


def _multiplies_bytes() -> bool:
    """Return whether this CPU is known to sum products of bytes in 32 bits.

    Without that, INT8 is slow, and on x86 it saturates. Linux lists the feature for x86 (VNNI) and ARM (``asimddp``);
    every ARM Mac has it; elsewhere it is unknown and taken to be absent.
    """
    machine = platform.machine().lower()
    if machine == "arm64" and sys.platform == "darwin":
        return True
    feature = {"x86_64": "vnni", "amd64": "vnni", "aarch64": "asimddp", "arm64": "asimddp"}.get(machine)
    try:
        return feature is not None and feature in _CPU_INFO.read_text("ascii", "replace")
    except OSError:
        return False
