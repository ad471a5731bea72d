"""The shipped backbone on real photos: 200 of them and ImageNet's names, torch against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from sar_train.clip import mini
from sar_train.export.bundle import export_bundle
from sar_train.export.source import from_template

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "imagenet_sample"


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the photos of ../shared/data/imagenet_sample")
@pytest.mark.skipif(not mini.WEIGHTS.is_file(), reason="needs the weights of sar-mini")
def test_parity_on_200_photos_and_1000_names(tmp_path: Path) -> None:
    phrases = {name: (name,) for name in dict.fromkeys(open_clip.IMAGENET_CLASSNAMES)}
    source = from_template("a photo of a {}.", phrases, mini.NAME, None)
    photos = sorted(FOLDER.rglob("*.jpg"))[::5][:200]
    manifest = export_bundle(source, tmp_path / "mini", command="tests", photos=photos)
    parity = manifest.quality.parity
    assert parity is not None
    assert (parity.images, parity.top1_agreement) == (200, 1.0)
    assert parity.image_min_cosine >= 0.99999
    assert parity.names >= len(phrases)
    assert parity.name_max_difference <= 1e-5
    assert sum(entry.size for entry in manifest.files.values()) < 32e6
