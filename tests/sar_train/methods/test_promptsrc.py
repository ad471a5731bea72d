"""What makes PromptSRC PromptSRC."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from support import full_length
from support.problems import (
    BASE,
    cross_entropy_by_hand,
    embed,
    generated_photos,
    make,
    outputs,
    parameters,
    prompted,
    setup,
)
from support.tiny import DEEP, RESNET, VIT, tiny_backbone
from torch.nn.functional import normalize

from sar_train.errors import BackboneError
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


@pytest.mark.parametrize("weights", [(25, 10, 1), (50, 0, 3)])
def test_the_terms_are_those_of_the_paper(weights: tuple[float, float, float]) -> None:
    names = ("text_weight", "image_weight", "kl_weight")
    settings = dict(zip(names, weights, strict=True)) if weights != (25, 10, 1) else {}
    step, method = outputs(5, 3, 6), make("promptsrc", **settings)
    teacher = normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(7)), dim=-1)
    method.__dict__["teacher"] = teacher
    w, v, f, f0 = (rows.double().tolist() for rows in (step.prompted, teacher, step.images, step.frozen_images))

    def mean_gap(first: list[list[float]], second: list[list[float]]) -> float:
        gaps = [abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
        return sum(gaps) / len(gaps)

    divergence = 0.0
    for image, untouched in zip(f, f0, strict=True):
        p, q = (
            [math.exp(7 * sum(a * b for a, b in zip(row, one, strict=True))) for row in rows]
            for rows, one in ((w, image), (v, untouched))
        )
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        divergence += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    terms = {name: float(value) for name, value in method.terms(step).items()}
    assert terms == {
        "cross_entropy": pytest.approx(cross_entropy_by_hand(step.logits, step.labels), rel=1e-5),
        "text_l1": pytest.approx(weights[0] * mean_gap(w, v), rel=1e-4),
        "image_l1": pytest.approx(weights[1] * mean_gap(f, f0), rel=1e-4),
        "logits_kl": pytest.approx(weights[2] * divergence / (5 * 3), rel=1e-4),
    }


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


def test_a_resnet_is_refused() -> None:
    with pytest.raises(BackboneError, match=f"promptsrc .*{RESNET}"):
        make("promptsrc", setup(model=RESNET))


@pytest.mark.parametrize("settings", [{"depth_text": 0}, {"depth_image": 13}, {"n_ctx_image": 0}, {"sigma": 0}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PromptSRCConfig(**settings)
