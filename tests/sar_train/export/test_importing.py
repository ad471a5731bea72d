"""``sar-bundle import``: towers that others publish become a bundle, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from support import towers as published

from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_train.clip import backbone as backbones
from sar_train.export.importing.checks import shipped_photos

BLOCKED = ("torch", "open_clip", "torchvision", "timm", "transformers")
WITHOUT_TORCH = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from sar_infer.cli.bundle import main
main(prog_name="sar-bundle")
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``sar-bundle`` where torch and its relatives cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def imported(source: object, out: Path, *options: object) -> Path:
    """Import, and return the bundle's folder."""
    done = run("import", source, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return out


def refused(*arguments: object, code: int = 2) -> str:
    """Return the one line that an import ends with."""
    done = run("import", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture(scope="module")
def mini() -> Any:
    return backbones.load("sar-mini", None).model


@pytest.fixture(scope="module")
def transformers_js(tmp_path_factory: pytest.TempPathFactory, mini: Any) -> Path:
    """`sar-mini` with outside data, and outputs that are not of unit length."""
    folder = tmp_path_factory.mktemp("js")
    published.transformers_js(
        folder,
        lambda x: (3 * mini.encode_image(x),),
        lambda x: (mini.encode_text(x),),
        mini,
        published.CLIP_PROCESSOR,
        {"model_type": "clip", "text_config": {"max_position_embeddings": 77}},
        mask=False,
        length=77,
        data=True,
    )
    published.save_clip_tokenizer(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    return folder


@pytest.fixture(scope="module")
def bundle(transformers_js: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(transformers_js, tmp_path_factory.mktemp("bundles") / "js")


def test_towers_with_outside_data_embed_as_torch_does(bundle: Path, mini: Any) -> None:
    classifier, shipped = Classifier.open(bundle), Classifier.open(default_bundle())
    photos = [*shipped_photos().values()]
    images = [classifier.embed_images(photos), shipped.embed_images(photos)]
    assert (images[0] * images[1]).sum(1).min() > 0.9999
    names = [*shipped_photos()]
    tokens = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}." for name in names])
    with torch.no_grad():
        reference = mini.encode_text(tokens, normalize=True).numpy()
    assert (classifier.embed_names(names) * reference).sum(1).min() > 0.99999
    opened = open_bundle(bundle)
    assert opened.manifest.tokenizer is not None
    assert opened.manifest.tokenizer.kind == "clip-bpe"
    assert [*opened.manifest.provenance.licences.values()] == ["mit"]
    assert opened.manifest.quality.tables["import"]["photos"] == 14
