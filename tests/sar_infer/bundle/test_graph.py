from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.bundles import image_graph, name_graph

from sar_infer.bundle.graph import refuse_external_data
from sar_infer.errors import BundleError


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model as it stands: onnx.save would try to write external data."""
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_the_graphs_of_a_bundle_hold_their_weights(tmp_path: Path) -> None:
    inline = image_graph()
    inline.graph.node.append(constant(numpy_helper.from_array(np.zeros(2, np.float32))))
    for model in (image_graph(), name_graph(), inline):
        refuse_external_data(saved(model, tmp_path))


def external() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def constant(value: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=value)


def sparse(field: str) -> onnx.SparseTensorProto:
    """Return a sparse tensor whose ``values`` or ``indices`` are outside the file."""
    tensor = onnx.SparseTensorProto(values=numpy_helper.from_array(np.zeros(2, np.float32)), dims=[4])
    tensor.indices.CopyFrom(numpy_helper.from_array(np.zeros(2, np.int64)))
    getattr(tensor, field).CopyFrom(external())
    return tensor


BRANCH = helper.make_graph([constant(external())], "branch", [], [])
ATTRIBUTES: list[tuple[str, object]] = [
    ("t", external()),
    ("g", BRANCH),
    ("tensors", [external()]),
    ("graphs", [BRANCH]),
    ("sparse_tensor", sparse("values")),
    ("sparse_tensor", sparse("indices")),
    ("sparse_tensors", [sparse("values")]),
]


def models_with_external_data() -> Iterator[onnx.ModelProto]:
    """Yield graphs with data outside in every field that can have some."""
    for field, value in (("initializer", external()), ("sparse_initializer", sparse("values"))):
        model = image_graph()
        getattr(model.graph, field).append(value)
        yield model
    for name, content in ATTRIBUTES:
        attribute = onnx.AttributeProto(name="a", **{name: content})
        of_node, of_function = image_graph(), image_graph()
        of_node.graph.node.add(op_type="Any").attribute.append(attribute)
        of_function.functions.add(name="f", domain="d").attribute_proto.append(attribute)
        yield from (of_node, of_function)
    model = image_graph()
    model.functions.add(name="f", domain="d").node.append(constant(external()))
    yield model


def test_external_data_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    for model in models_with_external_data():
        with pytest.raises(BundleError, match="outside"):
            refuse_external_data(saved(model, tmp_path))


def test_unknown_fields_of_every_wire_type_are_skipped(tmp_path: Path) -> None:
    unknown = b"\xf8\x07\x05" + b"\xf9\x07" + bytes(8) + b"\xfa\x07\x02ab" + b"\xfd\x07" + bytes(4)
    path = saved(image_graph(), tmp_path)
    path.write_bytes(unknown + path.read_bytes())
    refuse_external_data(path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello, I am not a graph", b"\xff" * 50, b"\x3a\xff\xff\xff\x7f"])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"m\.onnx"):
        refuse_external_data(tmp_path / "m.onnx")


def test_every_cut_is_an_error_or_harmless(tmp_path: Path) -> None:
    data = image_graph().SerializeToString()
    for length in range(0, len(data), 7):
        (tmp_path / "m.onnx").write_bytes(data[:length])
        with contextlib.suppress(BundleError):  # a cut between two fields leaves a file that can be read
            refuse_external_data(tmp_path / "m.onnx")


def test_a_number_has_ten_bytes_at_most(tmp_path: Path) -> None:
    field = b"\x80\x06"  # number 96, which no model has: a varint
    good = image_graph().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(good + field + b"\x80" * 9 + b"\x01")
    refuse_external_data(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(good + field + b"\x80" * 10 + b"\x01")
    with pytest.raises(BundleError, match="too long"):
        refuse_external_data(tmp_path / "m.onnx")


def test_a_tag_beyond_32_bits_hides_nothing(tmp_path: Path) -> None:
    """onnxruntime drops the upper bits, and so would read the field that this walker passes over."""
    hidden = b"\xba\x80\x80\x80\x10"  # field 7, the graph, with a bit above 32
    graph = helper.make_graph([constant(external())], "graph", [], []).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(hidden + bytes([len(graph) & 127 | 128, len(graph) >> 7]) + graph)
    with pytest.raises(BundleError, match="32 bits"):
        refuse_external_data(tmp_path / "m.onnx")
