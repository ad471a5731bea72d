"""The choice among a bundle's graphs: float32, or a smaller one that passed its gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, Manifest, Precision, Variant
from sar_infer.encoders.processor import FAST_AT_INT8, X86, processor
from sar_infer.encoders.sessions import Device, expects_cuda
from sar_infer.errors import InputError

PrecisionChoice = Literal["fp32", "fp16", "int8", "auto"]


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

    @property
    def caution(self) -> str | None:
        """Return a line for the user if this processor computes INT8 graphs inexactly, which costs some answers."""
        if self.precision != "int8" or processor() != X86:
            return None
        measured_on = self.variant.processor if self.variant else None
        figures = f"were measured on {measured_on}" if measured_on else "may not hold"
        return f"this processor has no VNNI: INT8 is less exact and slower here, and the bundle's figures {figures}"


def choose(manifest: Manifest, choice: PrecisionChoice, device: Device) -> Choice:
    """Return the graphs for a precision; an encoder that has none in this precision runs in float32.

    ``auto`` takes float16 on a GPU and INT8 on a CPU that has instructions for it, if the bundle has such an image
    encoder (and INT8 was faster when it was made); otherwise float32.

    Raises:
        InputError: There is no such precision, or the bundle has nothing in it.
    """
    if choice not in get_args(PrecisionChoice):
        raise InputError(f"precision: expected {', '.join(get_args(PrecisionChoice))}, got {choice!r}")
    precision = _automatic(manifest, device) if choice == "auto" else choice
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
    return "int8" if int8 and int8.speedup > 1 and processor() in FAST_AT_INT8 else "fp32"
