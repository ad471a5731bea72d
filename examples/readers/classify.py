"""Classify images by one ONNX file of ``sar-bundle onnx``: onnxruntime, numpy and Pillow, nothing of sar-clip.

::

    python examples/readers/classify.py shop.onnx photo.jpg
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, *paths: str) -> None:
    """Print a line of JSON for each image: the answer, null for unknown, its probability, and that of *unknown*."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    stored = session.get_modelmeta().custom_metadata_map
    names, fill = json.loads(stored["class_names"]), json.loads(stored["fill"])
    outputs = ["scores", "answer", "unknown", "embedding"]
    for path in paths:
        with Image.open(path) as photo:
            image = ImageOps.exif_transpose(photo)
        if image.mode == "F":
            raise SystemExit(f"{path}: expected integer pixels, got floating point; convert the image to 8 bits")
        if image.mode.startswith("I"):  # 16-bit grey
            grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
            level = image.info.get("transparency")
            pixels = np.where(grey == (-1 if level is None else level), fill, (grey + 128) // 257)
            image = Image.fromarray(pixels.astype(np.uint8))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (fill,) * 3), image.convert("RGBA"))
        scores, answer, unknown, embedding = session.run(outputs, {"image": np.asarray(image.convert("RGB"))})
        best = int(answer[0])
        result = {"image": path, "answer": None if best < 0 else names[best], "unknown": float(unknown[0])}
        result |= {"scores": scores[0].tolist(), "embedding": embedding[0].tolist()}
        print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("expected a model and photos: classify.py shop.onnx photo.jpg ...")
    main(*sys.argv[1:])
