"""The choice among a bundle's image encoders: float32, or a smaller one that passed its gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sar_infer.bundle.manifest import IMAGE_ENCODER, Manifest, Variant
from sar_infer.encoders.processor import FAST_AT_INT8, X86, processor
from sar_infer.encoders.sessions import MAIN_DEVICES, Device, expects_cuda
from sar_infer.errors import InputError

PrecisionChoice = Literal["fp32", "fp16", "int8", "bf16", "auto"]


@dataclass(frozen=True)
class Choice:
    """The image encoder that runs; names are always encoded in float32.

    Attributes:
        precision: That of the manifest, a key of ``Manifest.precisions``, or ``bf16``.
        image: File of the image encoder.
        variant: Figures of a smaller graph; None for the bundle's own.
    """

    precision: str
    image: str
    variant: Variant | None = None

    @property
    def caution(self) -> str | None:
        """Return a line for the user if this processor computes INT8 graphs inexactly, which costs some answers."""
        if self.precision != "int8" or processor() != X86:
            return None
        measured_on = self.variant.processor if self.variant else None
        figures = f"were measured on {measured_on}" if measured_on else "may differ"
        return f"this processor has no VNNI: INT8 is less exact and slower here, and the bundle's figures {figures}"


def choose(manifest: Manifest, choice: PrecisionChoice, device: Device) -> Choice:
    """Return the image encoder for a precision.

    ``auto`` is float16 on a GPU and INT8 on a CPU that has instructions for it, if the bundle has such an encoder (and
    INT8 was faster when it was made); otherwise, and on another provider, float32. A published tower that computes in
    float16 has no other graph, so ``fp32`` is that tower too. ``bf16`` needs no other graph either: OpenVINO computes
    the float32 one in bfloat16, see ``gate``.

    Raises:
        InputError: There is no such precision, or the bundle or the device does not have it.
    """
    if choice not in get_args(PrecisionChoice):
        raise InputError(f"precision: expected {', '.join(get_args(PrecisionChoice))}, got {choice!r}")
    if choice == "bf16":
        if device != "openvino":
            raise InputError("precision bf16: OpenVINO alone computes in it; add --device openvino")
        return Choice(choice, IMAGE_ENCODER)
    variants = manifest.precisions
    if choice == "auto":
        int8 = variants.get("int8") if device in MAIN_DEVICES else None
        if expects_cuda(device):
            choice = "fp16" if "fp16" in variants else "fp32"
        else:
            choice = "int8" if int8 and int8.speedup > 1 and processor() in FAST_AT_INT8 else "fp32"
    if choice in ("fp32", manifest.precision):
        return Choice(manifest.precision, IMAGE_ENCODER)
    if choice not in variants:
        raise InputError(
            f"precision {choice}: this bundle has {', '.join([manifest.precision, *sorted(variants)])}; "
            f"sar-bundle shrink BUNDLE --precision {choice} --photos FOLDER --out NEW adds it"
        )
    return Choice(choice, variants[choice].file, variants[choice])
