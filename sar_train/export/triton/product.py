"""The bank as an ONNX graph: (N, D) unit rows ``embedding`` to (N, C) ``logits`` and ``scores``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sar_infer.bundle.manifest import Manifest
from sar_infer.classifiers.composition import Terms
from sar_infer.classifiers.statistics import composed
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import scale
from sar_train.errors import ExportError
from sar_train.export.triton.config import EMBEDDING, LOGITS, SCORES

OPSET, IR = 13, 8
"""Old on purpose: every recent Triton reads them."""
LIMIT: int = onnx.checker.MAXIMUM_PROTOBUF
"""Largest size of an ONNX file in bytes."""


@dataclass(frozen=True)
class Product:
    """The graph, and the class of each column."""

    model: onnx.ModelProto
    labels: tuple[str, ...]


def bank_product(manifest: Manifest, classes: ClassSet) -> Product:
    """Return the graph that answers as the run time does for these classes.

    ``logits`` are the run time's, before the temperature; ``scores`` are the softmax of the logits over it. A head is
    mixed in where the classes have one, and statistics are part of weights and bias where they rank. Background classes
    take part in the softmax and have no column.

    Raises:
        ExportError: the bank is above 2 GiB, or has background classes alone.
    """
    size = len(classes.names) * (4 * manifest.embed_dim + 4 + 8)  # a row, its bias and its place among those shown
    if size > LIMIT:
        raise ExportError(
            f"the bank's graph has {size:,} bytes, above the {LIMIT:,} that one ONNX file can hold; freeze a smaller "
            "bank"
        )
    how, head = scale(manifest, classes), classes.head
    weight = classes.embeddings.T * np.float32(how.factor)
    bias = np.full(len(classes.names), how.bias, dtype=np.float32)
    centre = None
    if classes.terms is not None:
        weight, bias = _weights(classes.terms, classes.embeddings, bias)
        centre = classes.terms.statistics.centre
    elif head is not None:
        mix = np.float32(head.mix)
        weight = (1 - mix) * weight + mix * head.weight.T
        bias = (1 - mix) * bias + mix * head.bias
    hidden = np.zeros(len(classes.names), dtype=bool) if classes.background is None else classes.background
    shown = np.flatnonzero(~hidden)
    if not shown.size:
        raise ExportError("every class of the bank is background: there is nothing to answer")
    labels = tuple(classes.names[column] for column in shown.tolist())
    return Product(_model(weight, bias, how.temperature, shown, centre), labels)


def _weights(
    terms: Terms, rows: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return weights (D, C) for centred rows and bias (C,) of all classes, with photos or without.

    Args:
        terms: Those of the classes.
        rows: (C, D) their text rows.
        bias: (C,) is added.
    """
    none = np.zeros(len(rows), dtype=np.int64)
    weights, class_bias = composed(terms.statistics, terms.scale, rows, rows, none)
    weights[terms.columns], class_bias[terms.columns] = terms.weights, terms.bias[terms.columns]
    return weights.T, bias + class_bias


def _model(
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    temperature: float,
    shown: npt.NDArray[np.intp],
    centre: npt.NDArray[np.float32] | None,
) -> onnx.ModelProto:
    """Return the graph; ``centre`` is taken from the rows before the product, so that no digits are lost."""
    constants = {
        "weight": weight,
        "bias": bias,
        "temperature": np.float32(temperature),
        "shown": shown.astype(np.int64),
    }
    whole = len(shown) == len(bias)
    all_logits, all_scores = (LOGITS, SCORES) if whole else ("all_logits", "all_scores")
    rows, nodes = EMBEDDING, []
    if centre is not None:
        rows, constants["centre"] = "centred", centre
        nodes = [helper.make_node("Sub", [EMBEDDING, "centre"], [rows])]
    nodes += [
        helper.make_node("Gemm", [rows, "weight", "bias"], [all_logits]),
        helper.make_node("Div", [all_logits, "temperature"], ["divided"]),
        helper.make_node("Softmax", ["divided"], [all_scores], axis=-1),
    ]
    if whole:
        del constants["shown"]
    else:
        nodes += [
            helper.make_node("Gather", [all_logits, "shown"], [LOGITS], axis=1),
            helper.make_node("Gather", [all_scores, "shown"], [SCORES], axis=1),
        ]
    dim, count = weight.shape[0], len(shown)
    graph = helper.make_graph(
        nodes,
        "bank_product",
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", dim])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count]) for name in (LOGITS, SCORES)],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
