"""The photos that a run learns from, and those that it is evaluated on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.opened import opened
from support.photos import write_folder
from support.problems import TEMPLATE, feature_set
from support.tiny import tiny_backbone
from torch.nn.functional import normalize

from sar_train.config.run import RunConfig
from sar_train.data.features import PhotoFeatures
from sar_train.data.protocol import plan
from sar_train.data.task import Evaluated, learned_rows, make_task
from sar_train.errors import ConfigError


def evaluated(names: list[str], features: torch.Tensor) -> Evaluated:
    labels = torch.arange(len(features)) % len(names)
    return Evaluated(names, features, labels, torch.arange(len(features)), "test")


def test_copies_are_found_but_for_an_image_that_was_saved_again() -> None:
    rows = normalize(torch.randn(150, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    learned, again = rows[[3, 70, 149]], normalize(rows[[5]] + 0.01 * rows[[6]], dim=-1)
    copies = evaluated(["cat"], rows).copies_of(torch.cat([learned, learned, again]))  # at either of two that are equal
    assert [(row, at % 3) for row, at in copies] == [(3, 0), (70, 1), (149, 2)]
    rounded = normalize(learned + 1e-5 * rows[:3], dim=-1)
    assert evaluated(["cat"], rows).copies_of(rounded) == [(3, 0), (70, 1), (149, 2)]


def test_a_task_has_the_drawn_photos_of_base_classes_and_the_photos_of_each_side() -> None:
    features, backbone = feature_set(), tiny_backbone()
    names = features.dataset.class_names
    chosen = plan("base-to-new", names, published_split=True, base_classes="dog, red car, chair")
    config = RunConfig("x", shots=3, seed=2)
    made = make_task(features, chosen, config, backbone, TEMPLATE)
    labels = features.labels("train").tolist()
    rows = [row for row in features.draw(3, 2).train if labels[row] in (1, 3, 7)]
    assert learned_rows(features, chosen, config) == tuple(rows)
    assert torch.equal(made.features, features.views("train", rows))
    assert made.labels.tolist() == [(1, 3, 7).index(labels[row]) for row in rows]
    assert (made.class_names, made.crops) == (["dog", "red car", "chair"], None)
    assert torch.equal(made.handcrafted, backbone.embed_names(made.class_names, TEMPLATE))
    for side, base, split in ((made.base, True, "test"), (made.new, False, "test")):
        assert side is not None
        classes = [label for label in range(8) if (label in (1, 3, 7)) == base]
        expected = [row for row, label in enumerate(features.labels(split).tolist()) if label in classes]
        assert (side.rows.tolist(), side.split) == (expected, split)
        assert side.class_names == [names[label] for label in classes]
        assert [classes[label] for label in side.labels] == features.labels(split)[expected].tolist()
        assert torch.equal(side.features, features.plain(split, expected))
    with pytest.raises(ConfigError, match="needs the photos"):
        make_task(features, chosen, config, backbone, TEMPLATE, image_prompts=True)


def test_methods_that_prompt_images_learn_from_crops_of_the_drawn_photos(tmp_path: Path) -> None:
    features = PhotoFeatures(opened(write_folder(tmp_path, {"a": 9, "b": 9}), 5, 1), tiny_backbone(), views=3)
    chosen = plan("all", ("a", "b"), published_split=False)
    config = RunConfig("x", shots=2, seed=4)
    made = make_task(features, chosen, config, tiny_backbone(), TEMPLATE, image_prompts=True)
    rows = learned_rows(features, chosen, config)
    assert torch.equal(made.features, features.plain("train", rows)[:, None])
    assert made.crops is not None
    assert torch.equal(made.crops(torch.tensor([3, 1]), 7), features.crops([rows[3], rows[1]], 7))
