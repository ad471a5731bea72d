"""A stranger's bundle whose digests all fit: everything that it may hold, each with the line that refuses it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.tensor_bytes import join, read, split, write

from sar_infer import Classifier, open_bundle
from sar_infer.bank.file import checksum
from sar_infer.bundle.manifest import BANK, IMAGE_ENCODER, MANIFEST, NAME_ENCODER, TOKENIZER, file_entry
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.errors import SarInferError

Change = Callable[[Path], None]


def seal(folder: Path, edit: Callable[[dict[str, Any]], object] = lambda content: None) -> None:
    """Write the manifest anew for the files that are there, after a change of its JSON."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    entries = {path.name: file_entry(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    content["files"] = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in entries.items()}
    edit(content)
    del content["digest"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["digest"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")


# ------------------------------------------------------------------------------------------------------------ manifest
def field(name: str, value: object) -> Change:
    """Set a field, such as ``preprocess.size``."""

    def edit(content: dict[str, Any]) -> None:
        *parents, key = name.split(".")
        for parent in parents:
            content = content[parent]
        content[key] = value

    return lambda folder: seal(folder, edit)


def text(change: Callable[[bytes], bytes]) -> Change:
    def write_changed(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(change((folder / MANIFEST).read_bytes()))

    return write_changed


# -------------------------------------------------------------------------------------------------------------- graphs
def graph(change: Callable[[onnx.ModelProto], object], name: str = IMAGE_ENCODER) -> Change:
    def write_changed(folder: Path) -> None:
        model = onnx.load_from_string((folder / name).read_bytes())
        change(model)
        (folder / name).write_bytes(model.SerializeToString())
        seal(folder)

    return write_changed


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def weights_of_nan(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.full(tuple(tensor.dims), np.nan, dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def renamed_result(model: onnx.ModelProto) -> onnx.GraphProto:
    for node in model.graph.node:
        node.output[:] = ["narrow" if name == "embedding" else name for name in node.output]
    return model.graph


def twice_as_wide(model: onnx.ModelProto) -> None:
    """The output is said to be (N, D) and is (N, 2 D)."""
    changed = renamed_result(model)
    changed.node.append(helper.make_node("Concat", ["narrow", "narrow"], ["embedding"], axis=1))
    changed.output[0].type.tensor_type.shape.dim[1].dim_param = "D"


def always_three_rows(model: onnx.ModelProto) -> None:
    rows = numpy_helper.from_array(np.full((3, 8), 8**-0.5, dtype=np.float32), "rows")
    renamed_result(model).node.append(helper.make_node("Constant", [], ["embedding"], value=rows))


# --------------------------------------------------------------------------------------------------------- other files
def file(name: str, change: Callable[[bytes], bytes]) -> Change:
    def write_changed(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        seal(folder)

    return write_changed


def bank(tensor: str, change: Callable[[Any], object]) -> Change:
    """Change one tensor of the bank, under the checksum that fits."""

    def write_changed(folder: Path) -> None:
        metadata, arrays = read(folder / BANK)
        change(arrays[tensor])
        write(folder / BANK, metadata | {"digest": checksum(arrays)}, arrays)
        seal(folder)

    return write_changed


HOSTILE: dict[str, tuple[Change, str]] = {
    "a number of 400 digits": (field("embed_dim", 10**400), "field embed_dim: expected 1 to 65536"),
    "a number that is none": (field("logit_scale", float("nan")), "NaN is not a number of JSON"),
    "an image without end": (field("preprocess.size", 2**40), "field preprocess.size: expected 1 to 4096"),
    "a scale of nothing": (field("logit_scale", 0), "field logit_scale: expected 1e-06 to"),
    "an endless bias": (field("logit_bias", -1e300), "field logit_bias: expected -1e\\+06 to"),
    "a colour that is none": (field("preprocess.fill", 256), "field preprocess.fill: expected 0 to 255"),
    "an endless mean": (field("preprocess.mean", [0, 1e300, 0]), "field preprocess.mean: expected -1e\\+06 to"),
    "a deviation of nothing": (field("preprocess.std", [1, 0, 1]), "field preprocess.std: expected 1e-06 to"),
    "a context of one token": (field("tokenizer.context_length", 1), "field tokenizer.context_length: expected 2 to"),
    "a negative prefix": (field("tokenizer.n_prefix", -1), "field tokenizer.n_prefix: expected 0 to 65536"),
    "names of no token": (field("tokenizer.max_name_tokens", 0), "field tokenizer.max_name_tokens: expected 1 to"),
    "a negative seed": (field("self_test.seed", -1), "field self_test.seed: expected 0 to"),
    "a lone surrogate": (field("backbone", "\ud800"), f"{MANIFEST}: not valid JSON: .*surrogates not allowed"),
    "another type": (field("regularisers", [1]), "field regularisers"),
    "a self-test of another width": (field("self_test.embedding", [1.0]), "length of self_test.embedding: expected 8"),
    "a deep manifest": (text(lambda _: b"[" * 200_000), "not valid JSON: .*recursion"),
    "a long number": (text(lambda data: data.replace(b'_dim": ', b'_dim": ' + b"9" * 10_000, 1)), "4300 digits"),
    "4 MB of manifest": (text(lambda _: b'{"x": "' + b"y" * 2**22 + b'"}'), "expected schema_version 1, got None"),
    "data outside of names": (graph(outside, NAME_ENCODER), "name_encoder.onnx: refers to data outside the file"),
    "a tensor of 4 TiB": (graph(lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40)), IMAGE_ENCODER),
    "an unknown operator": (graph(lambda m: setattr(m.graph.node[0], "op_type", "Nothing")), IMAGE_ENCODER),
    "operators of the future": (graph(lambda m: setattr(m.opset_import[0], "version", 999)), IMAGE_ENCODER),
    "a circle": (graph(lambda m: m.graph.node[0].input.__setitem__(0, "embedding")), IMAGE_ENCODER),
    "rows twice as wide": (graph(twice_as_wide), "image_encoder.onnx"),
    "names twice as wide": (graph(twice_as_wide, NAME_ENCODER), "name_encoder.onnx"),
    "always three rows": (graph(always_three_rows), "image_encoder.onnx"),
    "always three names": (graph(always_three_rows, NAME_ENCODER), "name_encoder.onnx"),
    "weights of NaN": (graph(weights_of_nan), "finite"),
    "names of NaN": (graph(weights_of_nan, NAME_ENCODER), "finite"),
    "a tokenizer of 128 MiB": (file(TOKENIZER, lambda _: gzip.compress(bytes(2**27), 9)), "bytes unpacked"),
    "a header of 2**63 bytes": (file(BANK, lambda data: data[:7] + b"\x80" + data[8:]), "not a safetensors file"),
    "a deep header": (file(BANK, lambda data: join(b"[" * 100_000, split(data)[1])), "not a bank file"),
    "rows cut off": (file(BANK, lambda data: data[:-8]), "tensors end at byte"),
    "rows of NaN": (bank("embeddings", lambda rows: rows.fill(np.nan)), "embedding of 'red' has length nan"),
    "classes that are no JSON": (bank("json", lambda text: text.fill(0xFF)), "can't decode byte 0xff"),
    "a class without a row": (bank("json", lambda text: text.put(text.tobytes().index(b",0]") + 1, 57)), "damaged"),
}
"""By name: the change of a sound bundle, and the line that refuses it."""


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line(bundle_copy: Path, change: Change, message: str) -> None:
    change(bundle_copy)
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(SarInferError, match=message) as caught:
        Classifier(open_bundle(bundle_copy), device="cpu", cache=EmbeddingCache()).classify(picture, ["something new"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
