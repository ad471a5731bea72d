"""Every registered method as a bundle: photo and name in, logits out, against whole sequences through open_clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.exported import export_run, moved, reference_images, reference_names
from support.tiny import RESNET, VIT
from torch import Tensor

from sar_infer import Classifier
from sar_infer.encoders.self_test import self_test_image, self_test_pixels
from sar_train.methods.base import methods
from sar_train.training.prompted import PromptedCLIP

BANK = ("sea lake", "grey stone", "cat", "red car")
NEW = ("tripod", "Œuvre d'été", "a rather long name of a thing, with commas in it", "x")
TEXT_ONLY = sorted(name for name, kind in methods.entries.items() if "image" not in kind.towers)
CASES = [
    *((name, VIT, {}) for name in sorted(methods.entries)),
    ("coop", VIT, {"position": "middle"}),
    ("tcp", RESNET, {}),
    ("tcp", VIT, {"student": "person doing {}."}),
    *(pytest.param((name, RESNET, {}), marks=pytest.mark.slow) for name in TEXT_ONLY if name != "tcp"),
]


class Exported:
    def __init__(self, prompted: PromptedCLIP, folder: Path) -> None:
        self.prompted = prompted
        self.classifier = Classifier.open(export_run(prompted, BANK, folder), device="cpu")
        spec = prompted.backbone.preprocess
        self.images = [self_test_image(spec.size, seed) for seed in range(5)]
        self.pixels = torch.from_numpy(np.stack([self_test_pixels(spec, seed) for seed in range(5)]))

    def answers(self, names: tuple[str, ...], **options: object) -> Tensor:
        """Return the run time's logits (photos, names)."""
        results = self.classifier.classify(self.images, names, top_k=99, **options)
        answers = [{answer.label: answer.logit for answer in result.predictions} for result in results]
        return torch.tensor([[logits[name] for name in names] for logits in answers])

    def reference(self, names: tuple[str, ...]) -> Tensor:
        images, rows = reference_images(self.prompted, self.pixels), reference_names(self.prompted, names)
        return self.prompted.backbone.logit_scale * images @ rows.T


@pytest.fixture(scope="module", params=CASES, ids=lambda case: " ".join(map(str, (*case[:2], *case[2].values()))))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, backbone, settings = request.param
    return Exported(moved(name, backbone, **settings), tmp_path_factory.mktemp("method") / "bundle")


def test_any_names_get_the_logits_of_whole_sequences(exported: Exported) -> None:
    names = (*BANK, *NEW)
    logits = exported.answers(names)
    torch.testing.assert_close(logits, exported.reference(names), atol=1e-4, rtol=0)
    images = exported.prompted.encode_images(exported.pixels)
    ours = exported.prompted.logits(images, names, frozen=True)
    torch.testing.assert_close(logits, ours, atol=1e-4, rtol=0)


def test_the_trained_classes_alone_get_the_logits_of_the_prompt(exported: Exported) -> None:
    prompted = exported.prompted
    names = tuple(name.replace("_", " ") for name in prompted.trained)
    logits = exported.answers(names, only=True)
    images = prompted.encode_images(exported.pixels)
    expected = prompted.logits(images, prompted.trained, text_only=True, frozen=True)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_a_name_that_fills_the_last_position(exported: Exported) -> None:
    spec = exported.classifier.bundle.manifest.tokenizer
    name = " ".join(["dog"] * (spec.max_name_tokens - len(exported.prompted.backbone.text.encode(spec.suffix))))
    row = torch.from_numpy(exported.classifier.embed_names([name]))
    torch.testing.assert_close(row, reference_names(exported.prompted, [name]), atol=1e-5, rtol=0)
