from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.precisions import add_precision
from support.sound import change, turned_image_graph, turned_name_graph

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders.parity import Check, batch_difference, checks, in_batches, largest_difference, same_answer


def failed(path: Path) -> list[str]:
    return [check.what for check in checks(open_bundle(path)) if not check.passed]


def test_a_sound_bundle_passes(bundle_copy: Path) -> None:
    results = checks(open_bundle(add_precision(bundle_copy)))
    assert [check.what for check in results] == [
        "self-test image, cosine",
        "4 bank rows made again, difference",
        "batches of 1, 2, 7 and 33, difference",
        "int8 self-test image, cosine",
    ]
    assert all(check.passed for check in results)


@pytest.mark.parametrize(
    ("name", "graph", "expected"),
    [
        (IMAGE_ENCODER, turned_image_graph(), "self-test image, cosine"),
        (NAME_ENCODER, turned_name_graph(), "4 bank rows made again, difference"),
    ],
)
def test_a_graph_that_computes_something_else(
    bundle_copy: Path, name: str, graph: onnx.ModelProto, expected: str
) -> None:
    onnx.save(graph, bundle_copy / name)
    change(bundle_copy)
    assert expected in failed(bundle_copy)


def test_a_smaller_graph_that_computes_something_else(bundle_copy: Path) -> None:
    assert failed(add_precision(bundle_copy, self_test_cosine=1.0)) == ["int8 self-test image, cosine"]


def test_nan_never_passes() -> None:
    for value, kind in ((float("nan"), "at least"), (float("nan"), "at most"), (0.5, "at least"), (1.5, "at most")):
        assert not Check("x", value, kind, 1.0).passed  # type: ignore[arg-type]
    assert str(Check("x", 0.5, "at least", 1.0)) == "x: 0.5, expected at least 1"
    assert np.isnan(largest_difference(np.array([np.nan, 1.0], np.float32), np.ones(2, np.float32)))


def test_batches_that_depend_on_their_size_are_noticed() -> None:
    inputs = np.arange(66, dtype=np.float32).reshape(33, 2)
    assert batch_difference(lambda batch: batch, inputs) == 0
    assert batch_difference(lambda batch: batch + len(batch), inputs) == 32
    assert [len(piece) for piece in in_batches(range(100))] == [1, 2, 7, 33, 33, 24]


def test_tied_classes_are_the_same_answer() -> None:
    rows, reference = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.5, 0.5 + 1e-7], [1.0, 0.0]])
    assert same_answer(rows, reference, lambda batch: batch).tolist() == [False, False]
    assert same_answer(rows, reference, lambda batch: batch, 1e-6).tolist() == [True, False]
