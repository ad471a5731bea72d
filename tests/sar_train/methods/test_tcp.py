"""What makes TCP TCP."""

from __future__ import annotations

import pytest
import torch
from support.problems import make
from support.tiny import tiny_backbone

from sar_train.data.layouts import LAYOUTS
from sar_train.errors import ConfigError
from sar_train.methods.tcp import PAIRS, TCP, TCPConfig

PET = "a photo of a {}, a type of pet."


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
