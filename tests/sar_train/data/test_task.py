"""The photos that a run is evaluated on."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from sar_train.data.task import Evaluated, Task
from sar_train.training.measures import evaluate_all


def evaluated(names: list[str], features: torch.Tensor) -> Evaluated:
    labels = torch.arange(len(features)) % len(names)
    return Evaluated(names, features, labels, torch.arange(len(features)), "test")


def test_each_side_is_evaluated_against_its_own_classes() -> None:
    base, new = evaluated(["cat", "dog"], torch.eye(2)), evaluated(["cow"], torch.eye(2)[:1])
    learned = torch.eye(2)[:, None], torch.arange(2), base.class_names, torch.eye(2)

    def logits(features: torch.Tensor, names: object) -> torch.Tensor:
        return features[:, : 1 if names == ["cow"] else 2]

    answers = evaluate_all(Task(*learned, base=base, new=new), lambda side: side.features, logits)
    assert {name: side and side.counts for name, side in answers.parts.items()} == {
        "base": {"cat": 1, "dog": 1}, "new": {"cow": 1},
    }  # fmt: skip
    assert answers.open is not None
    alone = evaluate_all(Task(*learned, base=base), lambda side: side.features, logits)
    assert alone.parts["base"] == answers.parts["base"]
    assert (alone.parts["new"], alone.open) == (None, None)
    assert evaluate_all(Task(*learned), lambda side: side.features, logits).parts == {"base": None, "new": None}


def test_copies_are_found_but_for_an_image_that_was_saved_again() -> None:
    rows = normalize(torch.randn(150, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    learned, again = rows[[3, 70, 149]], normalize(rows[[5]] + 0.01 * rows[[6]], dim=-1)
    assert evaluated(["cat"], rows).copies_of(torch.cat([learned, learned, again])) == [3, 70, 149]
    rounded = normalize(learned + 1e-5 * rows[:3], dim=-1)
    assert evaluated(["cat"], rows).copies_of(rounded) == [3, 70, 149]
