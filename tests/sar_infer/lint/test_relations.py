from __future__ import annotations

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from sar_infer.encoders.scoring import unit_rows
from sar_infer.lint.relations import TAU, Relations

RANDOM = np.random.default_rng(7)
NAMES = [f"class {number}" for number in range(60)]
HANDCRAFTED = unit_rows(RANDOM.normal(size=(60, 12)).astype(np.float32))
LEARNED = unit_rows(HANDCRAFTED + 0.2 * RANDOM.normal(size=(60, 12)).astype(np.float32))


@pytest.fixture(scope="module")
def relations() -> Relations:
    return Relations(NAMES, LEARNED, HANDCRAFTED)


def reference(learned: np.ndarray, handcrafted: np.ndarray, without: int | None) -> float:
    """KL(Q || P) by scipy, in float64, the column of the class itself deleted."""
    anchors = HANDCRAFTED.astype(np.float64)
    if without is not None:
        anchors = np.delete(anchors, without, axis=0)
    teacher, student = (softmax(anchors @ row.astype(np.float64) / TAU) for row in (handcrafted, learned))
    return float(rel_entr(teacher, student).sum())


def test_the_distance_is_sars_for_classes_and_for_new_names(relations: Relations) -> None:
    new = unit_rows(RANDOM.normal(size=(2, 12)).astype(np.float32))
    found = relations.distances(["new", NAMES[5]], np.stack([new[0], LEARNED[5]]), np.stack([new[1], HANDCRAFTED[5]]))
    expected = [reference(new[0], new[1], None), reference(LEARNED[5], HANDCRAFTED[5], 5)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_is_the_loss_that_training_lowers(relations: Relations) -> None:
    torch = pytest.importorskip("torch")
    from sar_train.regularisers.sar import SARConfig, relation_loss

    learned, handcrafted = torch.from_numpy(LEARNED), torch.from_numpy(HANDCRAFTED)
    rows = torch.ones(60, dtype=torch.bool)
    loss = relation_loss(learned @ handcrafted.T, handcrafted @ handcrafted.T, rows, SARConfig())
    assert SARConfig().tau == TAU
    assert relations.distances(NAMES, LEARNED, HANDCRAFTED).mean() == pytest.approx(float(loss), rel=1e-4)


def test_what_moved_further_than_the_banks_own_is_found(relations: Relations) -> None:
    own = relations.distances(NAMES, LEARNED, HANDCRAFTED)
    assert relations.limit == pytest.approx(np.percentile(own, 99))
    stays, turned = HANDCRAFTED[:1], unit_rows(-HANDCRAFTED[:1])
    findings = relations.check(["stays", "turned"], np.concatenate([stays, turned]), HANDCRAFTED[[0, 0]])
    (finding,) = findings
    assert (finding.kind, finding.severity, finding.name) == ("moved", "warning", "turned")
    assert f"{relations.limit:.3g}" in finding.message
