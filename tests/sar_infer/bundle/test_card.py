from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from support.bundles import ENCODER_DIGEST, example_manifest, name_rows

from sar_infer.bank import ClassBank, add, set_class
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.manifest import (
    Calibration,
    Manifest,
    Parity,
    Precision,
    Provenance,
    Quality,
    Scores,
    Variant,
)

GOLDEN = Path(__file__).with_name("golden_card.md")
NAMES = ("red", "green|blue", "<b>grey</b> thing", *(f"thing {i}" for i in range(12)))
CALIBRATION = Calibration(
    dataset="photos_2",
    fitted_on=100,
    measured_on=200,
    cross_fitted=False,
    error_before=0.1,
    error_after=0.02,
    nll_before=1.0,
    nll_after=0.9,
    coverage={"0.9": 0.912},
    set_size={"0.9": 1.5},
    unknown_auroc={"score": 0.8, "energy": 0.85},
)
FULL = Quality(
    dataset="photos_2",
    protocol="base-to-new",
    shots=16,
    seeds=(1, 2),
    metrics=Scores(80.0, 60.0, 68.57),
    zero_shot=Scores(60.7, None, None),
    parity=Parity(43, 0.9999995, 1.0, 1068, 6.6e-7),
    calibration=CALIBRATION,
    notes=("a <note> of *ours*",),
    tables={
        "text-branch": {"base_accuracy": 70.0, "new_accuracy": 60.0, "harmonic_mean": 64.62},
        "other_photos": {"hand-crafted": 79.4, "CoOp": 73.9},
        "nested": {"not": {"shown": 1}},
    },
)


def bank(names: tuple[str, ...] = NAMES) -> ClassBank:
    bank = ClassBank.of(names, name_rows(names), ENCODER_DIGEST)
    return set_class(add(bank, {names[2]: ("another text",)}, name_rows(names[2:3])), names[1], background=True)


def full() -> Manifest:
    variant = Variant("image_encoder.int8.onnx", "static", 500, 0.97, 0.992, 0.985, 2.5)
    plain = example_manifest()
    return dataclasses.replace(
        plain,
        backbone="sar-mini",
        quality=FULL,
        provenance=Provenance(
            "2026-01-02T03:04:05+00:00",
            "sar-export 'runs/a\n```b' --out x",
            {"sar-clip": "0.1.0", "onnx_ir": "1"},
            {"image tower": "Apache-2.0 (a_b)", "tokenizer": "MIT"},
        ),
        precisions={
            "int8": Precision(image=variant),
            "fp16": Precision(name=dataclasses.replace(variant, method="cast")),
        },
        temperature=1.25,
        thresholds={"score": 0.3, "energy": -5.0},
        conformal={"0.9": 0.1},
        calibrated=NAMES[:1],
        head="head.safetensors",
    )


def front_matter(text: str) -> dict[str, object]:
    _, matter, _ = text.split("---\n", 2)
    content: dict[str, object] = yaml.safe_load(matter)
    return content


def test_everything_that_a_manifest_can_say() -> None:
    """`GOLDEN` was read by people; to change it, write what `card` gives and read it again."""
    assert card(full(), bank()) == GOLDEN.read_text(encoding="utf-8")


def test_a_bundle_that_says_little() -> None:
    plain = dataclasses.replace(example_manifest(), quality=Quality(), regularisers={})
    text = card(plain, ClassBank.of(("red",), name_rows(("red",)), ENCODER_DIGEST))
    for expected in (
        "# coop on tiny\n",
        "Not stated: nothing was trained",
        "Accuracy was not measured.",
        "Scores are not calibrated",
        "Full precision (fp32) only.",
        "as their publisher states; not known here",
    ):
        assert expected in text
    assert "--unknown" not in text


def test_the_front_matter_is_the_hubs() -> None:
    hub = pytest.importorskip("huggingface_hub")
    assert hub.ModelCard(card(full(), bank())).data.to_dict() == {
        "license": "other",
        "license_name": "stated-for-each-part",
        "library_name": "sar-clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "onnx", "open-vocabulary", "coop", "sar", "sar-mini"],
    }


@pytest.mark.parametrize("backbone", ["no", "on: [x]\n- y", '"', "ViT-B/16", "🦊"])
def test_no_backbone_breaks_the_front_matter(backbone: str) -> None:
    content = front_matter(card(dataclasses.replace(example_manifest(), backbone=backbone), bank()))
    assert content["license"] == "unknown"
    tags = content["tags"]
    assert isinstance(tags, list)
    assert all(isinstance(tag, str) and re.fullmatch(r"[a-z0-9-]+", tag) for tag in tags)


def test_the_bundle_that_ships() -> None:
    bundle = open_bundle()
    text = card(bundle.manifest, bundle.bank)
    assert "998: tench, goldfish" in text
    assert "no rival of CLIP's ViT-B/16" in text
    assert "| this bundle | 60.61 | - | - |" in text
    assert "pip install ." in text
