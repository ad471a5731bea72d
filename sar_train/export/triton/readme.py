"""The repository's ``README.md``: how to start Triton, and how to send it images."""

from __future__ import annotations

from collections.abc import Sequence

from sar_infer.bundle.card import escaped
from sar_infer.bundle.manifest import Manifest
from sar_train.export.triton import config

TEMPLATE = """\
# Triton model repository

Made by `sar-bundle triton BUNDLE --out DIR` from the bundle `{digest}`
({backbone}, {classes:,} classes, image encoder in {precision}).

| model | takes | gives |
|---|---|---|
| `{ENCODER}` | `{PIXELS}` FP32 [N, 3, {size}, {size}] | `{EMBEDDING}` FP32 [N, {dim}], unit rows |
| `{PRODUCT}` | `{EMBEDDING}` | `{SCORES}` and `{LOGITS}` FP32 [N, {classes}] |
| `{CLASSIFIER}` | `{PIXELS}` | all three; this is the one to ask |

Column i of `{SCORES}` is line i of `{PRODUCT}/labels.txt`. A request holds at most {MAX_BATCH} images; requests that
wait while another runs are run together. Change `dynamic_batching`, `instance_group` and `max_batch_size` to suit.

## Start

    docker run --rm -p 8000:8000 -v "$PWD":/models:ro IMAGE tritonserver --model-repository=/models

`IMAGE` is one of NVIDIA's images of Triton Inference Server that has the onnxruntime backend. Or, with `tritonserver`
on this machine: `tritonserver --model-repository=.`

## Ask

Triton decodes no images. The client does, and has to preprocess as the encoder expects; `sar_infer` does so exactly
(`pip install . 'tritonclient[http]'` in a clone of sar-clip):

```python
{snippet}```

## What is not here

Names that come with a call, thresholds for *unknown*, and the name encoder stay with `sar-classify` and `sar-serve`.
Other classes: freeze a bank into a bundle (`sar-bundle freeze`) and write a repository from that.
"""
SNIPPET = """\
import sys

import numpy as np
import tritonclient.http as triton
from sar_infer.bundle.manifest import Preprocess
from sar_infer.images.prefetch import decode_image

SPEC = {spec!r}

image = decode_image(sys.argv[1], SPEC)[np.newaxis]
pixels = triton.InferInput("{PIXELS}", image.shape, "FP32")
pixels.set_data_from_numpy(image)
best = triton.InferRequestedOutput("{SCORES}", class_count=5)
client = triton.InferenceServerClient("localhost:8000")
for answer in client.infer("{CLASSIFIER}", [pixels], outputs=[best]).as_numpy("{SCORES}")[0]:
    score, column, label = answer.decode().split(":", 2)
    print(f"{{float(score):.3f}} {{label}}")
"""


def readme(manifest: Manifest, labels: Sequence[str], precision: str) -> str:
    """Return the page for one repository."""
    return TEMPLATE.format(
        **vars(config),
        digest=manifest.digest,
        backbone=escaped(manifest.backbone),
        precision=precision,
        classes=len(labels),
        size=manifest.preprocess.size,
        dim=manifest.embed_dim,
        snippet=snippet(manifest),
    )


def snippet(manifest: Manifest) -> str:
    """Return a client in Python that classifies the image it is given."""
    return SNIPPET.format(**vars(config), spec=manifest.preprocess)
