"""The whole chain: photo and name in, logits out; open_clip and torch on one side, the run time on the other."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import skimage
import torch
from PIL import Image
from support.tiny import RESNET, VIT, register, tiny_backbone
from support.transform import open_clip_transform

from sar_infer import Classifier
from sar_train.clip.prompts import Prompts
from sar_train.export.bundle import export_bundle
from sar_train.export.source import ExportSource
from sar_train.training.prompted import Fixed, PromptedCLIP

PHOTOS = [
    Path(skimage.__file__).parent / "data" / name for name in ("chelsea.png", "coffee.png", "rocket.jpg", "camera.png")
]
BANK = ("cat", "coffee cup", "rocket", "golden retriever")
NEW = ("man with a camera", "tripod", "Œuvre d'été", "a rather long name of a thing, with commas in it")


@pytest.fixture(scope="module", params=[VIT, RESNET])
def source(request: pytest.FixtureRequest) -> ExportSource:
    register()
    backbone = tiny_backbone(request.param)
    context = 0.1 * torch.randn(4, backbone.text.width, generator=torch.Generator().manual_seed(0))
    prompted = PromptedCLIP(backbone, Fixed(Prompts(context)), "a photo of a {}.", ())
    return ExportSource(prompted, {name: (name,) for name in BANK}, "coop", regularisers={"sar": 1.0})


@pytest.fixture(scope="module")
def classifier(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    path = tmp_path_factory.mktemp("parity") / "bundle"
    export_bundle(source, path, command="tests")
    return Classifier.open(path, device="cpu")


def reference_logits(source: ExportSource) -> torch.Tensor:
    """(photos, names) by open_clip's transform and image tower, and CoOp's own 77 positions through its text tower."""
    model, spec = source.backbone.model, source.backbone.preprocess
    pixels = torch.stack([open_clip_transform(spec)(Image.open(path)) for path in PHOTOS])
    context = source.prompted.method.get_buffer("context")
    texts = [" ".join(["X"] * len(context) + [name + "."]) for name in (*BANK, *NEW)]
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    with torch.no_grad():
        x = model.token_embedding(tokens)
        x[:, 1 : 1 + len(context)] = context
        x = model.ln_final(model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask))
        rows = x[torch.arange(len(texts)), tokens.argmax(-1)] @ model.text_projection
        images = model.encode_image(pixels, normalize=True)
        return model.logit_scale.exp() * images @ torch.nn.functional.normalize(rows, dim=-1).T


def test_logits_and_ranking_are_those_of_torch(source: ExportSource, classifier: Classifier) -> None:
    expected = reference_logits(source)
    probabilities = expected.softmax(-1)
    results = classifier.classify(PHOTOS, classes=NEW, only=False, top_k=len(BANK) + len(NEW))
    names = [*BANK, *NEW]
    for row, result in enumerate(results):
        assert [prediction.label for prediction in result.predictions] == [
            names[i] for i in expected[row].argsort(descending=True)
        ]
        for prediction in result.predictions:
            column = names.index(prediction.label)
            assert prediction.logit == pytest.approx(float(expected[row, column]), abs=2e-4)
            assert prediction.score == pytest.approx(float(probabilities[row, column]), abs=1e-5)
            assert prediction.source == ("bank" if column < len(BANK) else "extended")
