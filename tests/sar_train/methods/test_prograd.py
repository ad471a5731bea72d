"""What makes ProGrad ProGrad."""

from __future__ import annotations

import math

import pytest
import torch
from support import full_length
from support.problems import classes, make, outputs, setup
from support.tiny import tiny_backbone
from torch.nn.functional import cross_entropy

from sar_train.methods.prograd import ProGrad, ProGradConfig, opening


def test_a_conflict_is_projected_away() -> None:
    method = make("prograd")
    # g = (3, 1), g_kl = (-2, 0): u = (-1, 0), g . u = -3, so g - (-3) u = (0, 1).
    torch.testing.assert_close(
        method.project_gradient(torch.tensor([3.0, 1]), torch.tensor([-2.0, 0])), torch.tensor([0.0, 1])
    )
    # g = (1, -2), g_kl = (3, 4): u = (.6, .8), g . u = -1, so g + u = (1.6, -1.2).
    projected = method.project_gradient(torch.tensor([1.0, -2]), torch.tensor([3.0, 4]))
    torch.testing.assert_close(projected, torch.tensor([1.6, -1.2]))
    # lambda = 0.5 takes half of it away.
    half = make("prograd", weight=0.5).project_gradient(torch.tensor([1.0, -2]), torch.tensor([3.0, 4]))
    torch.testing.assert_close(half, torch.tensor([1.3, -1.6]))


@pytest.mark.parametrize("reference", [(2.0, 5.0), (0.0, 0.0), (1.0, 3.0)])
def test_without_a_conflict_the_gradient_stays(reference: tuple[float, float]) -> None:
    gradient = torch.tensor([3.0, -1])
    assert torch.equal(make("prograd").project_gradient(gradient, torch.tensor(reference)), gradient)


@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_the_distillation_is_a_cross_entropy_with_the_zero_shot_answer(heat: float) -> None:
    step, total = outputs(), 0.0
    for image, frozen in zip(step.images, step.frozen_images, strict=True):
        student = [float(image @ w) * step.scale / heat for w in step.prompted]
        teacher = [float(frozen @ v) * step.scale / heat for v in step.handcrafted]
        for s, t in zip(student, teacher, strict=True):
            q = math.exp(t) / sum(map(math.exp, teacher))
            total -= q * (s - math.log(sum(map(math.exp, student))))
    terms = make("prograd", temperature=heat).terms(step)
    assert terms.keys() == {"cross_entropy", "zero_shot_kl"}
    assert float(terms["zero_shot_kl"]) == pytest.approx(heat**2 * total / 5, rel=1e-4)
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy(step.logits, step.labels))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a photo of a {}.", "a photo of a"),
        ("a photo of a {}, a type of pet.", "a type of pet, a photo of a"),
        ("a centered satellite photo of {}.", "a centered satellite photo of"),
        ("{} texture.", "texture"),
    ],
)
def test_the_templates_words_stand_at_the_right_end(template: str, words: str) -> None:
    assert opening(template) == words
    context = make("prograd", setup(template=template), count="tokens").context.detach()
    tokens = tiny_backbone().model.token_embedding(torch.tensor(full_length.tokenizer().encode(words)))
    assert context.shape == (16, 32)
    assert torch.equal(context[16 - len(tokens) :], tokens)
    assert not context[: 16 - len(tokens)].any()


def test_as_many_tokens_are_learned_as_the_template_has_words() -> None:
    """A comma is a token but no word, so that the reference leaves the last word of such a template as it is."""
    method = make("prograd", setup(template="a type of pet, a photo of a {}."))
    tokens = tiny_backbone().text.embed_text("a type of pet, a photo of a")
    assert len(tokens) == 9
    context = method.prompts(classes()).context.detach()
    assert torch.equal(context[8:], tokens)
    assert not context[:8].any()
    assert method.context.shape == (16, 32)
    assert torch.equal(method.state_dict()["rest"], tokens[8:])
    plain = make("prograd", setup(template="a centered satellite photo of {}."))
    assert plain.state_dict().keys() == {"context"}


@pytest.mark.parametrize(
    ("template", "dataset", "teacher"),
    [
        ("a photo of a {}, a type of pet.", "oxford_pets", "a type of pet, a photo of a {}."),
        ("a photo of {}, a type of food.", "food101", "a type of food, a photo of {}."),
        ("{} texture.", "dtd", "a texture of {}."),
        ("{} texture.", None, "texture {}."),
        ("a photo of a {}", None, "a photo of a {}"),
        ("a photo of a person doing {}.", "ucf101", "a photo of a person doing {}."),
    ],
)
def test_the_teacher_has_the_kind_of_thing_in_front_too(template: str, dataset: str | None, teacher: str) -> None:
    assert ProGrad.settle(ProGradConfig(), template, dataset) == (ProGradConfig(), teacher)


def test_a_short_context_keeps_the_words_next_to_the_name() -> None:
    context = make("prograd", n_ctx=2).context.detach()
    assert torch.equal(context, tiny_backbone().text.embed_text("of a"))
