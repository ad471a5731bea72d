"""Convert a graph to float16, with float32 at both ends and for long sums.

Layer norms, means and everything after the last matrix product stay in float32, as in OpenAI's own float16 models:
their sums of squares exceed float16's range or its 11 bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT32 = frozenset({"BatchNormalization", "CastLike", "Gelu", "LayerNormalization", "ReduceL2", "ReduceMean"})
"""Operators that stay in float32. onnxruntime 1.31 crashes on some graphs with ``Gelu`` in float16, on the CPU."""
AS_THEY_ARE = frozenset({"Cast", "Constant", "ConstantOfShape", "Shape"})
"""Operators that take any type and give one of their own."""
HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def cast(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in float16; its inputs and outputs keep their types."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Caster(result.graph, typed).run()
    return result


class _Caster:
    """Walks through a graph in order and adds a cast wherever a value is needed in the other type.

    Args:
        graph: the graph to change.
        typed: the same graph with the types of all values.
    """

    def __init__(self, graph: onnx.GraphProto, typed: onnx.GraphProto) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        values = (*typed.input, *typed.value_info, *typed.output)
        floats = {value.name for value in values if value.type.tensor_type.elem_type == FULL}
        floats |= {name for name, tensor in self._weights.items() if tensor.data_type == FULL}
        self._held = dict.fromkeys(floats, FULL)
        """The type that a floating-point value has now, by name."""
        self._made: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Change the graph."""
        nodes = list(self._graph.node)
        last = max((i for i, node in enumerate(nodes) if node.op_type in ("MatMul", "Gemm", "Conv")), default=-1)
        for index, node in enumerate(nodes):
            kind = FULL if index > last or node.op_type in FLOAT32 else HALF
            if node.op_type in AS_THEY_ARE:
                self._nodes.append(node)
            else:
                self._convert(node, kind)
        used = {name for node in self._nodes for name in node.input}
        initializers = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:], self._graph.node[:]
        self._graph.initializer.extend(initializers)
        self._graph.node.extend(self._nodes)

    def _convert(self, node: onnx.NodeProto, kind: int) -> None:
        for i, name in enumerate(node.input):
            if name in self._held:
                node.input[i] = self._as(name, kind)
        self._nodes.append(node)
        ends = {value.name for value in self._graph.output}
        for i, name in enumerate(node.output):
            if name in self._held and kind == HALF:
                if name in ends:
                    node.output[i] = f"{name}:half"
                    self._nodes.append(helper.make_node("Cast", [node.output[i]], [name], to=FULL))
                else:
                    self._held[name] = HALF

    def _as(self, name: str, kind: int) -> str:
        """Return the name of this value in a type, adding a cast if it is new."""
        if self._held[name] == kind:
            return name
        if (name, kind) not in self._made:
            converted = self._made[name, kind] = f"{name}:{'half' if kind == HALF else 'full'}"
            if name in self._weights:
                with np.errstate(over="ignore"):  # a mask's largest negative number becomes minus infinity
                    values = numpy_helper.to_array(self._weights[name]).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, converted))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [converted], to=kind))
        return self._made[name, kind]
