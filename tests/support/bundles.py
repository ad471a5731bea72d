"""A tiny real bundle: two small ONNX graphs made by rule, open_clip's merges, a bank; it opens like any other."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sar_infer.bank import ClassBank, Images
from sar_infer.bundle.manifest import (
    BANK,
    CLASS_MODEL,
    IMAGE_ENCODER,
    MANIFEST,
    NAME_ENCODER,
    SCHEMA_VERSION,
    TOKENIZER,
    Manifest,
    Preprocess,
    Provenance,
    Quality,
    Scores,
    SelfTestVector,
    file_entry,
)
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer, encode_name

DIM = 8
SIZE = 32
VOCABULARY = 49_408
ENCODER_DIGEST = "e" * 64
BANK_NAMES = ("red", "green", "blue", "grey thing")
SPEC = TokenizerSpec("clip-bpe", context_length=24, n_prefix=5, suffix=".", end_token=49_407, max_name_tokens=18)
PREPROCESS = Preprocess(
    SIZE, "shortest", "bicubic", mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)


def write_bundle(
    path: Path,
    names: Sequence[str] = BANK_NAMES,
    trained: TrainedClasses | None = None,
    images: str = "",
    **changes: Any,
) -> Path:
    """Write a sound bundle to a folder that does not exist yet; ``changes`` replace manifest fields."""
    path.mkdir(parents=True)
    onnx.save(image_graph(), path / IMAGE_ENCODER)
    onnx.save(name_graph(), path / NAME_ENCODER)
    write_tokenizer(path / TOKENIZER)
    encoder = changes.get("encoder_digest", ENCODER_DIGEST)
    ClassBank.of(tuple(names), name_rows(names), encoder, images=Images(images)).save(path / BANK)
    if trained is not None:
        trained.save(path / CLASS_MODEL)
    reseal(path, **changes)
    return path


def reseal(path: Path, **changes: Any) -> None:
    """Write the manifest anew for the files that are there."""
    files = {entry.name: file_entry(entry) for entry in sorted(path.iterdir()) if entry.name != MANIFEST}
    manifest = dataclasses.replace(example_manifest(), **{"files": files, **changes})
    (path / MANIFEST).write_text(manifest.sealed().dump(), "utf-8")


@functools.cache
def merges() -> list[str]:
    """The merges that CLIP uses, from the installed open_clip."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    data = gzip.decompress((Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    return data.decode("utf-8").split("\n")[1 : 49_152 - 256 - 2 + 1]


def write_tokenizer(path: Path) -> None:
    path.write_bytes(_packed_merges())


@functools.cache
def _packed_merges() -> bytes:
    text = "\n".join(["#version: 0.2", *merges()]) + "\n"
    return gzip.compress(text.encode(), mtime=0)


def name_rows(names: Sequence[str]) -> npt.NDArray[np.float32]:
    """What ``name_graph`` gives, computed with numpy."""
    tokenizer = _tokenizer()
    rows = np.array([_token_table()[[*encode_name(tokenizer, SPEC, name), 49_407]].sum(axis=0) for name in names])
    result: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def at_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fix the batch of a graph at one, as in most published ones: more items are refused."""
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def image_graph() -> onnx.ModelProto:
    """Mean colour, a fixed matrix (3, DIM), unit length."""
    return _graph(
        [
            helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["raw"]),
            helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
        ],
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),
        {"axes": np.array([2, 3], dtype=np.int64), "weight": image_weight()},
    )


def name_graph() -> onnx.ModelProto:
    """Sum of a fixed row for each token (padding has a zero row), unit length."""
    return _graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axes"], ["raw"], keepdims=0),
            helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
        ],
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"]),
        {"axes": np.array([1], dtype=np.int64), "table": _token_table()},
    )


def image_weight() -> npt.NDArray[np.float32]:
    return np.sin(np.arange(3 * DIM, dtype=np.float32)).reshape(3, DIM)


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer(merges())


@functools.cache
def _token_table() -> npt.NDArray[np.float32]:
    table = np.sin(np.arange(VOCABULARY * DIM, dtype=np.float64) ** 1.1).reshape(VOCABULARY, DIM).astype(np.float32)
    table[0] = 0
    return table


def _graph(nodes: list[onnx.NodeProto], source: onnx.ValueInfoProto, weights: dict[str, Any]) -> onnx.ModelProto:
    target = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])
    initialisers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [source], [target], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


@functools.cache
def _self_test() -> SelfTestVector:
    """What ``image_graph`` gives for the self-test image, computed with numpy."""
    row = self_test_pixels(PREPROCESS, 1).mean((1, 2)) @ image_weight()
    return SelfTestVector(1, tuple((row / np.linalg.norm(row)).tolist()))


def example_manifest() -> Manifest:
    """A manifest that lists no files; not sealed."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        backbone="tiny",
        weights_digest="0" * 64,
        method="coop",
        template="a photo of a {}.",
        regularisers={"sar": 1.0},
        embed_dim=DIM,
        logit_scale=20.0,
        preprocess=PREPROCESS,
        tokenizer=SPEC,
        encoder_digest=ENCODER_DIGEST,
        files={},
        quality=Quality(dataset="nothing", metrics=Scores(base_accuracy=50.0), notes=("a test",)),
        provenance=Provenance("2000-01-01T00:00:00Z", "tests", {"sar-clip": "0"}),
        self_test=_self_test(),
    )
