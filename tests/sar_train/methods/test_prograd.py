"""What makes ProGrad ProGrad."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import classes, make, setup
from support.tiny import tiny_backbone

from sar_train.methods.prograd import ProGrad, ProGradConfig, opening


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


def test_a_share_of_a_conflict_is_projected_away() -> None:
    """g = (1, -2), g_kl = (3, 4): u = (.6, .8), g . u = -1, so g + u = (1.6, -1.2), of which half is taken."""
    gradient, reference = torch.tensor([1.0, -2]), torch.tensor([3.0, 4])
    half = make("prograd", weight=0.5).project_gradient(gradient, reference)
    torch.testing.assert_close(half, torch.tensor([1.3, -1.6]))
    assert torch.equal(make("prograd").project_gradient(gradient, torch.zeros(2)), gradient)
