"""The recipe: what it teaches, that a few steps of it learn, and that it repeats to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from recipes import image_tower, targets, text_tower
from sar_train.clip import mini
from sar_train.novel_names import wordnet

RECIPE = replace(text_tower.Recipe(), batch=64, warmup=5)


@pytest.fixture(scope="module")
def class_rows() -> torch.Tensor:
    return image_tower.load_weights(image_tower.packaged_checkpoint())[1]


@pytest.fixture(scope="module")
def curriculum(class_rows: torch.Tensor) -> targets.Curriculum:
    return targets.build(class_rows, held_out=500, seed=RECIPE.seed)


def target(group: targets.Targets, name: str) -> torch.Tensor:
    return group.rows[next(i for i, names in enumerate(group.names) if name in names)]


def test_the_projection_keeps_what_the_head_says(class_rows: torch.Tensor) -> None:
    """Independent of the code: rank classes for random features with the head and by cosine with the rows."""
    source = torch.load(image_tower.packaged_checkpoint(), weights_only=True)
    head = source["_fc.weight"] - source["_fc.weight"].mean(0)
    tower, _ = image_tower.load_weights(image_tower.packaged_checkpoint())
    projected = normalize(head @ tower["head.proj.weight"].T, dim=-1)
    torch.testing.assert_close(projected, class_rows, atol=1e-4, rtol=0)
    assert float((head - head @ tower["head.proj.weight"].T @ tower["head.proj.weight"]).norm() / head.norm()) < 0.33


def test_nouns_have_the_targets_of_the_design(curriculum: targets.Curriculum, class_rows: torch.Tensor) -> None:
    taxonomy, classes = wordnet.load(), targets.imagenet_synsets()
    assert len(classes) == 1000 == len(curriculum.imagenet.names)
    dog = taxonomy.by_lemma["dog"][0]
    under_dog = [class_rows[i] for i, s in enumerate(classes) if dog in taxonomy.distances_up(s)]
    assert len(under_dog) == 118
    torch.testing.assert_close(target(curriculum.above, "dog"), normalize(torch.stack(under_dog).mean(0), dim=0))
    puppy = target(curriculum.others, "puppy")
    assert float(puppy @ target(curriculum.above, "dog")) > float(puppy @ target(curriculum.above, "cat"))


def trained(curriculum: targets.Curriculum, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    mini.register()
    torch.manual_seed(0)
    model = open_clip.create_model(mini.NAME)
    losses: list[float] = []
    text_tower.train(
        model, curriculum, replace(RECIPE, batch=16, steps=steps), lambda step, loss, seconds: losses.append(loss)
    )
    return model.state_dict(), losses


def test_a_few_steps_learn_a_few_names(curriculum: targets.Curriculum) -> None:
    groups = (curriculum.imagenet, curriculum.above, curriculum.others)
    few = [targets.Targets(g.names[:8], g.rows[:8], g.weights[:8]) for g in groups]
    losses = trained(replace(curriculum, imagenet=few[0], above=few[1], others=few[2]), 30)[1]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.nightly
@pytest.mark.usefixtures("one_thread")
def test_the_recipe_repeats_to_the_bit(curriculum: targets.Curriculum) -> None:
    (first, losses), (second, again) = (trained(curriculum, 3) for _ in range(2))
    assert losses == again
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_encoding_equals_open_clip() -> None:
    mini.register()
    torch.manual_seed(0)
    model = open_clip.create_model(mini.NAME).eval()
    tokens = open_clip.get_tokenizer(mini.NAME)(["a photo of a golden retriever.", "cat"])
    with torch.no_grad():
        torch.testing.assert_close(
            text_tower.encode(model, tokens[:, :12]), model.encode_text(tokens, normalize=True), atol=1e-5, rtol=0
        )
