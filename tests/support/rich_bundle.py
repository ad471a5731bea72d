"""A tiny sound bundle that has everything a bundle may have: for tests of what befalls the parts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from support.bundles import BANK_NAMES, PREPROCESS, example_head, name_rows, reseal, write_bundle

from sar_infer.bank import ClassBank, add, remove, rename, set_class
from sar_infer.bundle.manifest import (
    BANK,
    IMAGE_ENCODER,
    NAME_ENCODER,
    Calibration,
    Precision,
    Preprocess,
    Quality,
    Scores,
    SelfTestVector,
    Variant,
)

_CALIBRATION = Calibration("nothing", 20, 20, True, 0.1, 0.05, 0.5, 0.4, {"0.9": 0.91}, {"0.9": 1.5}, {"score": 0.8})
_QUALITY = Quality(
    "nothing",
    "all",
    16,
    (1, 2),
    Scores(50.0, 40.0, 44.4),
    Scores(30.0),
    None,
    _CALIBRATION,
    ("a test",),
    {"t": {"x": 1}},
)


def write_rich_bundle(path: Path, names: Sequence[str] = BANK_NAMES) -> Path:
    """With a head, smaller graphs, confidence, and a bank whose classes were edited."""
    write_bundle(path, names, example_head(names))
    bank = ClassBank.load(path / BANK)
    bank = add(bank, ["teal", "pink"], name_rows(["teal", "pink"]), by="tests")
    bank = set_class(bank, "teal", aliases=("blue green",), threshold=0.1)
    bank = set_class(bank, "pink", background=True)
    remove(rename(bank, "pink", "rose"), ["teal"]).settled().save(path / BANK)
    smaller = {}
    for kind, file in (("image", IMAGE_ENCODER), ("name", NAME_ENCODER)):
        target = file.replace(".onnx", ".int8.onnx")
        shutil.copy(path / file, path / target)
        smaller[kind] = Variant(target, "dynamic", 10, 1.0, 1.0, 1.0, 2.0, notes=("everything",))
    reseal(
        path,
        preprocess=Preprocess(**(vars(PREPROCESS) | {"jpeg_margin": 2.0})),
        quality=_QUALITY,
        self_test=SelfTestVector(1, (1.0, *[0.0] * 7)),
        precisions={"int8": Precision(**smaller)},
        temperature=1.5,
        thresholds={"score": 0.1, "energy": 5.0},
        conformal={"0.9": 0.05},
        calibrated=tuple(names),
    )
    return path
