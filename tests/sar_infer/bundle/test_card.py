from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import markdown
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import ENCODER_DIGEST, example_manifest, name_rows, write_bundle
from support.precisions import variant
from support.trained import example_trained

from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card, describe, escaped
from sar_infer.bundle.manifest import Parity, Quality, Scores

BANK = ClassBank.of(("red", "green|blue"), name_rows(("red", "green|blue")), ENCODER_DIGEST)
ESTIMATE = {
    "classes": 6,
    "defaults": None,
    "expected": [
        {"photos": 0, "trained": 80, "accuracy": 38.2},
        {"photos": 1, "trained": 78, "accuracy": 41.9},
        {"photos": 2, "trained": 76, "accuracy": 50},
    ],
    "rivals": 5,
}
QUALITY = Quality(
    dataset="photos_2",
    protocol="base-to-new",
    shots=16,
    metrics=Scores(80.0, 60.0, 68.57),
    zero_shot=Scores(60.7, None, None),
    parity=Parity(43, 0.9999995, 1.0, 1068, 6.6e-7),
    notes=("a <note> of *ours*",),
    tables={
        "text-branch": {"base_accuracy": 70.0, "new_accuracy": 60.0, "harmonic_mean": 64.62},
        "photos": {"learned": 78, "base": 18},
        "added classes": ESTIMATE,
        "other photos": {"CoOp": 73.9},
    },
)


def test_everything_that_a_bundle_can_say(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", trained=example_trained(), quality=QUALITY)
    bundle = open_bundle(path)
    manifest = dataclasses.replace(bundle.manifest, precisions={"int8": variant("image_encoder.int8.onnx")})
    bundle = dataclasses.replace(bundle, manifest=manifest)
    lines = describe(bundle).splitlines()
    for expected in (
        "method        coop with sar 1",
        "template      a photo of a {}.",
        "classes       4: red, green, blue, grey thing",
        "measured on   photos_2, base-to-new, 78 photos learned",
        "zero-shot     base 60.7 %",
        "this bundle   base 80.0 %, new 60.0 %, harmonic mean 68.6 %",
        "text only     base 70.0 %, new 60.0 %, harmonic mean 64.6 %",
        "added later   expected accuracy 76 % of trained classes among 6, and of classes that you add 38 % by name, "
        "42 % with 1 photo, 50 % with 2 photos among 11 (cross-validation)",
    ):
        assert expected in lines
    assert any(line.startswith("int8          100 photos: cosine 0.9950 on average, at least 0.98") for line in lines)
    assert any(line.startswith("class model") for line in lines)
    text = html.unescape(card(manifest, bundle.bank))
    assert all(f"- **{line[:14].strip()}**: {line[14:]}" in text for line in lines[2:])


def test_a_bundle_that_says_little(bundle_copy: Path) -> None:
    manifest = dataclasses.replace(example_manifest(), quality=Quality(), template=None, regularisers={})
    text = card(manifest, BANK)
    assert "# coop on tiny\n" in text
    for label in ("measured on", "zero-shot", "this bundle", "template", "note", "class model"):
        assert f"**{label}**" not in text


def test_the_front_matter_is_the_hubs() -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = card(open_bundle().manifest, BANK)
    assert hub.ModelCard(text).data.to_dict() == {
        "license": "other",
        "license_name": "stated-for-each-part",
        "library_name": "sar-clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "onnx", "open-vocabulary", "coop", "sar", "sar-mini"],
    }


@pytest.mark.parametrize("backbone", ["no", "on: [x]\n- y", '"', "ViT-B/16", "🦊"])
def test_no_backbone_breaks_the_front_matter(backbone: str) -> None:
    _, matter, _ = card(dataclasses.replace(example_manifest(), backbone=backbone), BANK).split("---\n", 2)
    content = yaml.safe_load(matter)
    assert content["license"] == "unknown"
    assert all(isinstance(tag, str) and re.fullmatch(r"[a-z0-9-]+", tag) for tag in content["tags"])


@settings(max_examples=50)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from("<>&|*_`[]()\\#!~$@ \n"))
    | st.sampled_from(["<script>alert(1)</script>", "[link](javascript:alert(1)) ![image](x)", "&lt;tag&gt; &amp;"])
)
def test_text_comes_out_of_a_renderer_as_it_went_in(text: str) -> None:
    page = markdown.markdown("Name " + escaped(text), extensions=["tables"])
    paragraph = re.fullmatch(r"<p>Name ?([^<>]*)</p>", page, re.DOTALL)
    assert paragraph is not None, page
    assert html.unescape(paragraph[1]) == " ".join(text.split())


def test_plain_names_stay_readable_and_invisible_characters_are_seen() -> None:
    assert escaped("Jack-o'-lantern, 50% off (v1.0)") == "Jack-o'-lantern, 50% off (v1.0)"
    assert escaped("a\u202eb\u0000c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
