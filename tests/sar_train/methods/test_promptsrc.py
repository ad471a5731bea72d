"""What makes PromptSRC PromptSRC."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    embed,
    generated_photos,
    make,
    parameters,
    prompted,
    setup,
)
from support.tiny import DEEP, VIT, tiny_backbone
from torch.nn.functional import normalize

from sar_train.methods.promptsrc import TEACHER, PromptSRCConfig

PIXELS = generated_photos([0, 1, 2], 6)


@pytest.mark.parametrize(("model", "depths"), [(VIT, (1, 2)), (DEEP, (8, 9))])
def test_both_towers_equal_full_length_ones_with_hooks(model: str, depths: tuple[int, int]) -> None:
    backbone, method = tiny_backbone(model), make("promptsrc", setup(model=model), n_ctx_image=3)
    for i, parameter in enumerate(method.parameters()):
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    p = parameters(method)
    assert (len(method.text), len(method.image)) == depths
    deep = {k + 1: p[f"text.{k}"] for k in range(depths[0])}
    theirs = full_length.text_rows(backbone, BASE, p["context"], replace=deep)
    torch.testing.assert_close(embed(method, model=model), theirs, atol=3e-6, rtol=0)
    deep = {k: p[f"image.{k}"] for k in range(1, depths[1])}
    theirs = full_length.image_rows(backbone, PIXELS, p["image.0"], deep)
    torch.testing.assert_close(prompted(method, model=model).encode_images(PIXELS), theirs, atol=3e-6, rtol=0)


def test_the_text_starts_from_words_the_rest_at_random_and_depths_are_apart() -> None:
    method = make("promptsrc", setup(model=DEEP))
    assert torch.equal(method.context.detach(), tiny_backbone(DEEP).text.embed_text("a photo of a"))
    drawn = torch.cat([vectors.detach().flatten() for vectors in (*method.text, *method.image)])
    assert 0.019 < float(drawn.std()) < 0.021
    theirs = full_length.encode_text(tiny_backbone(), [f"a photo of a {name}." for name in BASE])
    torch.testing.assert_close(embed(make("promptsrc", depth_text=1)), theirs, atol=2e-6, rtol=0)
    prompts = make("promptsrc", setup(model=DEEP), depth_text=3, depth_image=5).prompts(None)
    assert (list(prompts.text), list(prompts.image)) == ([1, 2], [0, 1, 2, 3, 4])


def test_the_teacher_reads_sixty_templates() -> None:
    assert len(TEACHER) == 60 == len(set(TEACHER))
    assert TEACHER[0] == "a photo of a {}."
    usual = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert list(TEACHER[1:]) == [template for template in usual if template != TEACHER[0]][:59]


def test_the_teacher_is_the_mean_of_raw_embeddings_made_unit() -> None:
    backbone, total = tiny_backbone(), 0
    for template in TEACHER:
        texts = full_length.tokenizer()([template.format(name) for name in BASE])
        total = total + backbone.model.encode_text(texts, normalize=False)
    teacher = make("promptsrc").teacher
    torch.testing.assert_close(teacher, normalize(total / 60, dim=-1), atol=2e-6, rtol=0)
    assert not teacher.requires_grad


@pytest.mark.parametrize(("mean", "sigma", "epochs"), [(15.0, 1.0, 20), (30.0, 30.0, 50)])
def test_epochs_count_by_a_gaussian(mean: float, sigma: float, epochs: int) -> None:
    weights = make("promptsrc", mean=mean, sigma=sigma).averaging(epochs)
    densities = [math.exp(-(((t - mean) / sigma) ** 2) / 2) for t in range(1, epochs + 1)]
    assert weights == pytest.approx([density / sum(densities) for density in densities])
    assert (PromptSRCConfig().mean, PromptSRCConfig().sigma) == (15.0, 1.0)


@pytest.mark.parametrize("epochs", [1, 5, 50])
def test_a_mean_beyond_the_last_epoch_takes_the_last(epochs: int) -> None:
    weights = make("promptsrc", mean=100.0).averaging(epochs)
    assert sum(weights) == pytest.approx(1)
    assert weights[-1] > 0.99
