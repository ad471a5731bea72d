"""The gate of bfloat16: the float32 graph computed in it has to give the shipped photos what float32 gives them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.encoders import openvino
from sar_infer.encoders.encoders import ImageEncoder, batch_of, unit_rows
from sar_infer.encoders.engines import OPENVINO, check_device
from sar_infer.encoders.processor import has_bfloat16
from sar_infer.encoders.waiting import TRIAL_SECONDS
from sar_infer.errors import InputError
from sar_infer.images.prefetch import decode_image
from sar_infer.storage.files import write_atomically

LEAST_COSINE, LEAST_AGREEMENT = 0.999, 0.99
"""Mean cosine to float32, and share of photos with the same best class of the bundle's bank."""


def shipped_photos() -> dict[str, Path]:
    """Return photos of distinct things by their names."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("photos").glob("*.jpg"))}


def check_bfloat16(bundle: Bundle, threads: int | None) -> None:
    """Measure bfloat16 on the shipped photos, unless the outcome is in the cache of compiled graphs.

    Raises:
        DeviceError: OpenVINO is not installed.
        InputError: The processor has no instructions for it, or the bundle does not pass.
        BundleError: A graph is not accepted, or takes too long.
    """
    check_device(OPENVINO)
    if not has_bfloat16():
        raise InputError(
            "precision bf16: this processor has no instructions for it (amx_bf16, avx512_bf16), and would be slower "
            "than fp32; use --precision fp32"
        )
    graph = bundle.path / IMAGE_ENCODER
    file = openvino.cache_file(graph, ["gate of bf16", bundle.bank.digest], ".json")
    try:
        cosine, agreement = map(float, json.loads(file.read_text("ascii")))
    except (OSError, ValueError, TypeError):
        cosine, agreement = _measured(bundle, graph, threads)
        with contextlib.suppress(OSError):  # a read-only home
            openvino.make_cache()
            write_atomically(file, [json.dumps([cosine, agreement]).encode()])
    if not (cosine >= LEAST_COSINE and agreement >= LEAST_AGREEMENT):
        raise InputError(
            f"precision bf16: this encoder loses too much in it: mean cosine {cosine:.5f} to fp32, same best class "
            f"{agreement:.0%} of {len(shipped_photos())} photos, expected at least {LEAST_COSINE} and "
            f"{LEAST_AGREEMENT:.0%}; use --precision fp32"
        )


def _measured(bundle: Bundle, graph: Path, threads: int | None) -> tuple[float, float]:
    pixels = batch_of([decode_image(path, bundle.manifest.preprocess) for path in shipped_photos().values()])

    def rows(device: str, precision: str) -> Floats:
        encoder = ImageEncoder(graph, bundle.manifest.embed_dim, device, threads, spin=False, precision=precision)
        return np.concatenate([encoder.encode(pixels[row : row + 1], TRIAL_SECONDS) for row in range(len(pixels))])

    exact, rounded = rows("cpu", "fp32"), rows(OPENVINO, "bf16")
    cosine = float((unit_rows(exact) * unit_rows(rounded)).sum(1).mean())
    entries = [*bundle.bank.entries.values()]
    if not entries:
        return cosine, 1.0
    classes = np.array([entry.embedding for entry in entries], np.float32)
    return cosine, float(((exact @ classes.T).argmax(1) == (rounded @ classes.T).argmax(1)).mean())
