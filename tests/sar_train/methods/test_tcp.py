"""What makes TCP TCP."""

from __future__ import annotations

import pytest
import torch
from support import full_length
from support.problems import embed, make, parameters, setup
from support.tiny import DEEP, RESNET, VIT, tiny_backbone
from torch import Tensor

from sar_train.clip.prompts import Prompts
from sar_train.data.layouts import LAYOUTS
from sar_train.errors import ConfigError
from sar_train.methods.base import PromptMethod
from sar_train.methods.tcp import PAIRS, TCP, TCPConfig

UNSEEN = ("fox", "an improbably long name, with commas", "boat")
PET = "a photo of a {}, a type of pet."


def tokens(method: PromptMethod, rows: Tensor) -> Tensor:
    """T_c from the parameters: Linear, x * sigmoid(1.702 x), Linear, laid out as M vectors."""
    p = parameters(method)
    made = []
    for row in rows:
        hidden = p["inner.weight"] @ row + p["inner.bias"]
        hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        made.append((p["outer.weight"] @ hidden + p["outer.bias"]).view(p["context"].shape))
    return torch.stack(made)


def test_with_share_zero_it_is_a_plain_prompt() -> None:
    method = make("tcp", share=0.0)
    plain = tiny_backbone().text(Prompts(method.context), UNSEEN)
    assert torch.equal(embed(method, UNSEEN), plain)
    theirs = full_length.text_rows(tiny_backbone(), UNSEEN, method.context.detach())
    torch.testing.assert_close(plain, theirs, atol=2e-6, rtol=0)
    assert (embed(make("tcp"), UNSEEN) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (VIT, {"block": 2}),  # the blocks at which they enter by default, scaled to the depth of the tower
        (RESNET, {"block": 2}),
        (DEEP, {"block": 8}),
        *((DEEP, {"block": block, "share": share}) for block, share in ((0, 1.0), (4, 1.0), (4, 0.25), (11, 1.0))),
    ],
)
def test_class_aware_tokens_enter_before_a_block(model: str, settings: dict[str, float]) -> None:
    backbone, share = tiny_backbone(model), settings.get("share")
    method = make("tcp", setup(model=model), **(settings if share else {}))
    assert share or method.block == settings["block"]
    hand = full_length.encode_text(backbone, [f"a photo of a {name}." for name in UNSEEN])
    theirs = full_length.text_rows(
        backbone, UNSEEN, method.context.detach(), replace={settings["block"]: tokens(method, hand)}, share=share or 1.0
    )
    torch.testing.assert_close(embed(method, UNSEEN, model=model), theirs, atol=3e-6, rtol=0)


def test_teacher_and_student_read_the_same_text_behind_the_name() -> None:
    method = make("tcp", setup(template=PET))
    hand = full_length.encode_text(tiny_backbone(), [PET.format(name) for name in UNSEEN])
    theirs = full_length.text_rows(
        tiny_backbone(), UNSEEN, method.context.detach(), suffix=", a type of pet.", replace={2: tokens(method, hand)}
    )
    torch.testing.assert_close(embed(method, UNSEEN, PET), theirs, atol=2e-6, rtol=0)


def test_the_students_words_stand_between_vectors_and_name() -> None:
    doing = "a photo of a person doing {}."
    method = make("tcp", setup(template=doing), student="person doing {}!")
    assert parameters(method)["context"].shape == (4, 32)
    words = tiny_backbone().text.embed_text("person doing")
    hand = full_length.encode_text(tiny_backbone(), [doing.format(name) for name in UNSEEN])
    context = torch.cat([method.context.detach(), words])
    theirs = full_length.text_rows(tiny_backbone(), UNSEEN, context, suffix="!", replace={2: tokens(method, hand)})
    torch.testing.assert_close(embed(method, UNSEEN, doing), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("dataset", "student", "teacher"),
    [
        ("ucf101", "person doing {}.", "a photo of a person doing {}."),
        ("stanford_cars", "{} , a type of car", "a photo of a {} ."),
        ("dtd", "{} texture.", "a photo of a {} , a type of texture."),
        ("oxford_pets", "{}, a type of pet.", PET),
        ("food101", "{}, a type of food.", "a photo of a {}, a type of food."),
    ],
)
def test_known_datasets_have_the_references_pair(dataset: str, student: str, teacher: str) -> None:
    settled = TCP.settle(TCPConfig(), LAYOUTS[dataset].template, dataset)
    assert settled == (TCPConfig(student=student), teacher)


def test_every_dataset_that_can_be_trained_on_has_a_pair() -> None:
    assert PAIRS.keys() == {key for key, layout in LAYOUTS.items() if layout.counts[0]}


def test_a_users_templates_go_before_the_references() -> None:
    assert TCP.settle(TCPConfig(), "a car, {}.", None) == (TCPConfig(student="{}."), "a car, {}.")
    settings = TCPConfig(student="of a {}.")
    assert TCP.settle(settings, "a photo of a {}.", "stanford_cars") == (settings, "a photo of a {}.")
    settled = TCP.settle(TCPConfig(student="{}, a car."), "my {}", None)
    assert settled == (TCPConfig(student="{} , a car."), "my {}")


@pytest.mark.parametrize("student", ["no place", "two {} {}", "un{}"])
def test_a_students_template_is_checked(student: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        TCP.settle(TCPConfig(student=student), "a photo of a {}.", None)


def test_the_shared_context_starts_at_random() -> None:
    method = make("tcp", n_ctx=16)
    assert 0.015 < float(method.context.detach().std()) < 0.025
    assert method.outer.out_features == 16 * 32
    words = make("tcp", context_init="a photo of a").context.detach()
    assert torch.equal(words, tiny_backbone().text.embed_text("a photo of a"))
