"""The similarities that go with a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.problems import BASE, CLASSES, TEMPLATE
from support.tiny import tiny_backbone

from sar_train.experiment import similarity
from sar_train.experiment.similarity import similarities
from sar_train.methods.base import Setup, methods
from sar_train.training.prompted import PromptedCLIP


def prompted(**settings: object) -> PromptedCLIP:
    kind, backbone = methods.get("coop"), tiny_backbone()
    setup = Setup(backbone, BASE, TEMPLATE, torch.Generator().manual_seed(0))
    return PromptedCLIP(backbone, kind(kind.Config(**settings), setup), TEMPLATE, BASE)


def test_they_are_the_cosines_in_thousandths() -> None:
    learned = prompted(context_init="")
    found = similarities(learned, BASE, CLASSES[4:])
    assert found is not None
    assert (found["names"], found["base"]) == (list(CLASSES), len(BASE))
    upper = np.triu_indices(len(CLASSES), 1)
    with torch.no_grad():
        rows = {"learned": learned.embed(CLASSES).numpy()}
    rows["handcrafted"] = learned.backbone.embed_names(CLASSES, learned.backbone.handcrafted(TEMPLATE)).numpy()
    for name, matrix in rows.items():
        np.testing.assert_allclose(found[name], 1000 * (matrix @ matrix.T)[upper], atol=0.51)
    assert found["learned"] != found["handcrafted"]


def test_the_template_as_context_changes_nothing() -> None:
    found = similarities(prompted(), BASE, CLASSES[4:])
    assert found is not None
    np.testing.assert_allclose(found["learned"], found["handcrafted"], atol=1)


def test_of_many_names_some_are_kept_from_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MOST", 4)
    found = similarities(prompted(), CLASSES[:6], CLASSES[6:])
    assert found is not None
    assert found["names"] == [CLASSES[0], CLASSES[2], CLASSES[4], CLASSES[6]]
    assert found["base"] == 3


def test_nothing_where_prompts_hold_for_the_trained_classes_or_names_are_too_few() -> None:
    assert similarities(prompted(class_specific=True), BASE, ()) is None
    assert similarities(prompted(), BASE[:2], ()) is None
