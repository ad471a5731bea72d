from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.bundles import example_manifest

from sar_infer.bundle.checks import check_numbers
from sar_infer.bundle.manifest import Manifest
from sar_infer.errors import BundleError
from sar_infer.storage.strict_json import build

LIMITS: dict[str, tuple[float, float]] = {
    "embed_dim": (8, 8),  # of the self-test's embedding
    "logit_scale": (1e-6, 1e6),
    "logit_bias": (-1e6, 1e6),
    "preprocess.size": (1, 4096),
    "preprocess.fill": (0, 255),
    "preprocess.mean.1": (-1e6, 1e6),
    "preprocess.std.1": (1e-6, 1e6),
    "tokenizer.context_length": (2, 65_536),
    "tokenizer.n_prefix": (0, 65_536),
    "tokenizer.max_name_tokens": (1, 65_536),
    "self_test.seed": (0, 2**32),
}


def with_value(field: str, value: float) -> Manifest:
    content: Any = json.loads(example_manifest().dump())
    *parents, key = (name.replace("/", ".") for name in field.split("."))
    item = content
    for name in parents:
        item = item[name]
    item[int(key) if isinstance(item, list) else key] = value
    manifest: Manifest = build(Manifest, content, "here")
    return manifest


@pytest.mark.parametrize(("field", "limits"), LIMITS.items(), ids=LIMITS)
def test_limits_of_every_number(field: str, limits: tuple[float, float]) -> None:
    least, largest = limits
    for value in limits:
        check_numbers(with_value(field, value), "here")
    step = 1 if isinstance(least, int) else 1e-7
    named = "self_test.embedding" if field == "embed_dim" else field.removesuffix(".1").replace("/", ".")
    for value in (least - step, largest + step * max(1, abs(largest))):
        with pytest.raises(BundleError, match=re.escape(named)):
            check_numbers(with_value(field, value), "here")
