"""The JSON that ``sar-export`` and ``sar-bundle shrink`` end with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from sar_infer.bundle.manifest import Manifest
from sar_train.export.precision.derive import DerivedParts


def plain(out: Path, manifest: Manifest, outcome: DerivedParts | None = None, pushed: str | None = None) -> str:
    """Return JSON for programs.

    Args:
        out: the bundle's folder.
        manifest: its manifest.
        outcome: what came of each part that was to be added, told under ``asked``.
        pushed: where on a hub the bundle is too.
    """
    content = {
        "bundle": str(out),
        "digest": manifest.digest,
        "encoder_digest": manifest.encoder_digest,
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "precisions": {name: dataclasses.asdict(graphs) for name, graphs in manifest.precisions.items()},
        "quality": dataclasses.asdict(manifest.quality),
    }
    if outcome is not None:
        content["asked"] = outcome.plain()
    if pushed is not None:
        content["pushed"] = pushed
    return json.dumps(content, ensure_ascii=False)
