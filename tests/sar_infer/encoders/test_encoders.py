from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.bundles import DIM, SIZE, SPEC, at_one, image_graph, image_weight, name_graph

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, file_entry
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder, unit_rows
from sar_infer.errors import BundleError


@pytest.fixture
def images(bundle_path: Path) -> ImageEncoder:
    return ImageEncoder(bundle_path / IMAGE_ENCODER, DIM, "cpu")


@pytest.fixture
def names(bundle_path: Path) -> NameEncoder:
    return NameEncoder(bundle_path / NAME_ENCODER, DIM, "cpu", spec=SPEC)


FLOAT = TensorProto.FLOAT


def resize(graph: onnx.GraphProto, axis: int, size: int) -> None:
    graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size


def rename(graph: onnx.GraphProto) -> None:
    graph.node[0].input[0] = graph.input[0].name = "strange"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: resize(graph, 0, 2), r"expected a first axis of 1 or of any size, got shapes \[\[2, 3, "),
        (
            lambda graph: graph.input.append(helper.make_tensor_value_info("mask", FLOAT, ["N"])),
            "expected a graph with one input and one output, got pixels, mask, embedding",
        ),
        (
            lambda graph: graph.output.append(helper.make_tensor_value_info("raw", FLOAT, ["N", DIM])),
            "expected a graph with one input and one output, got pixels, embedding, raw",
        ),
        (rename, "cannot run this graph: .*pixels"),
        (lambda graph: resize(graph, 3, SIZE + 1), "cannot run this graph: .*dimensions"),
    ],
)
def test_a_graph_that_is_no_encoder_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[onnx.GraphProto], None], message: str
) -> None:
    model = image_graph()
    change(model.graph)
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BundleError, match=message) as refused:
        ImageEncoder(tmp_path / "graph.onnx", DIM, "cpu").encode(np.ones((2, 3, SIZE, SIZE), dtype=np.float32))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("count", [0, 1, 33])
def test_images_of_any_number(images: ImageEncoder, names: NameEncoder, count: int) -> None:
    pixels = np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)
    expected = pixels.mean(axis=(2, 3)) @ image_weight()
    np.testing.assert_allclose(images.encode(pixels), unit_rows(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(expected), axis=1), 1, rtol=1e-6)
    assert names.encode([]).shape == (0, DIM)


@pytest.mark.parametrize("count", [1, 5])
def test_a_graph_whose_batch_is_fixed_at_one_runs_one_by_one(
    images: ImageEncoder, names: NameEncoder, tmp_path: Path, count: int
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)
    rows = [rng.integers(1, 999, size=4).tolist() for _ in range(count)]
    onnx.save(at_one(image_graph()), tmp_path / "images.onnx")
    onnx.save(at_one(name_graph()), tmp_path / "names.onnx")
    single = ImageEncoder(tmp_path / "images.onnx", DIM, "cpu").encode(pixels, 60)
    np.testing.assert_allclose(single, images.encode(pixels), atol=1e-6)
    single = NameEncoder(tmp_path / "names.onnx", DIM, "cpu", spec=SPEC).encode(rows)
    np.testing.assert_allclose(single, names.encode(rows), atol=1e-6)


def test_names_of_mixed_lengths_keep_their_order(names: NameEncoder) -> None:
    rng = np.random.default_rng(0)
    rows = [[n, *rng.integers(1, 999, size=n % 3).tolist()] for n in range(1, 901)]  # 256 at once
    together = names.encode(rows)
    alone = np.concatenate([names.encode([row]) for row in rows])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) == 900


def test_a_graph_is_opened_only_with_the_digest_that_is_expected(bundle_path: Path, tmp_path: Path) -> None:
    graph = Path(shutil.copy(bundle_path / IMAGE_ENCODER, tmp_path))
    pixels = np.ones((1, 3, SIZE, SIZE), np.float32)

    def encoder() -> ImageEncoder:
        return ImageEncoder(graph, DIM, "cpu", sha256=digest)

    digest = file_entry(graph).sha256
    opened = encoder()
    expected = opened.encode(pixels)
    graph.unlink()
    with pytest.raises(BundleError, match=r"image_encoder\.onnx: cannot be read any more .*reload"):
        encoder().open()
    shutil.copy(bundle_path / NAME_ENCODER, graph)
    with pytest.raises(BundleError, match=r"image_encoder\.onnx: was replaced .*reload"):
        encoder().open()
    np.testing.assert_array_equal(opened.encode(pixels), expected)  # the session that is open needs no file
    shutil.copy(bundle_path / IMAGE_ENCODER, graph)
    np.testing.assert_array_equal(encoder().encode(pixels), expected)
