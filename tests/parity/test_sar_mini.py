"""The shipped backbone on real photos and some of ImageNet's names, torch against onnxruntime.

``scripts/build_mini_bundle.py`` compares on 200 photos and all of the names; `test_classifier` compares tiny backbones.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from sar_train.clip import mini
from sar_train.export.bundle import export_bundle
from sar_train.export.source import from_template

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "imagenet_sample"


@pytest.mark.nightly
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the photos of ../shared/data/imagenet_sample")
@pytest.mark.skipif(not mini.WEIGHTS.is_file(), reason="needs the weights of sar-mini")
def test_parity_on_photos_and_names(tmp_path: Path) -> None:
    phrases = {name: (name,) for name in dict.fromkeys(open_clip.IMAGENET_CLASSNAMES[::4])}
    source = from_template("a photo of a {}.", phrases, mini.NAME, None)
    photos = sorted(FOLDER.rglob("*.jpg"))[::20]
    manifest = export_bundle(source, tmp_path / "mini", command="tests", photos=photos)
    parity = manifest.quality.parity
    assert parity is not None
    assert (parity.images, parity.top1_agreement) == (50, 1.0)
    assert parity.image_min_cosine >= 0.99999
    assert parity.names >= len(phrases)
    assert parity.name_max_difference <= 1e-5
    assert sum(entry.size for entry in manifest.files.values()) < 32e6
