from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sar_train.errors import ExportError
from sar_train.export import graph


class LookUp(nn.Module):
    """The exporter calls the result of a look-up ``embedding``, which is also what the output is to be called."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.table(tokens)).sum(1)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    example = torch.tensor([[1, 2, 3], [4, 5, 6]])
    return graph.trace(LookUp().eval(), example, input_name="tokens", dynamic={0: "batch", 1: "length"})


def test_names_and_shapes_of_input_and_output(model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.shape, source.type) == ("tokens", ["batch", "length"], "tensor(int64)")
    assert (result.name, result.shape, result.type) == ("embedding", ["batch", 3], "tensor(float)")


def test_every_value_has_a_name_of_its_own_that_tells_nothing_of_the_machine(model: onnx.ModelProto) -> None:
    names = [name for node in model.graph.node for name in node.output]
    names += [tensor.name for tensor in model.graph.initializer] + [value.name for value in model.graph.input]
    assert len(names) == len(set(names))
    onnx.checker.check_model(model, full_check=True)
    assert b".py" not in model.SerializeToString()
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_a_graph_too_large_for_one_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LIMIT", 100)
    with pytest.raises(ExportError, match="more than the 100 of one ONNX file"):
        graph.trace(nn.Linear(3, 3).eval(), torch.zeros(2, 3), input_name="x", dynamic={0: "batch"})
