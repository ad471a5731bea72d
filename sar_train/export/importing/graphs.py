"""A published graph and the nodes around it: our names, casts, a mask, unit length; the graph itself stays as it is."""

from __future__ import annotations

import graphlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from sar_infer.bundle.manifest import file_entry
from sar_infer.storage.files import write_file
from sar_train.errors import ConfigError
from sar_train.export.importing.sources import Source
from sar_train.export.importing.tokens import MASK

LIMIT: int = onnx.checker.MAXIMUM_PROTOBUF
"""Largest size of a graph in bytes; a bundle has no external data."""
IMAGE_INPUTS, TEXT_INPUTS = ("image", "pixel_values"), ("text", "input_ids")
OUTPUTS = ("embedding", "image_embeds", "text_embeds", "image_embedding", "text_embedding", "pooler_output")
"""The projected output first."""
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operators that every onnxruntime has."""
_PREFIX = "published/"


@dataclass(frozen=True)
class Port:
    """An input or output: name, ONNX type, and axes, which are sizes, or names of axes of any size."""

    name: str
    kind: int
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, port: onnx.ValueInfoProto) -> Port:
        """Read one."""
        tensor = port.type.tensor_type
        axes = tuple(axis.dim_value or axis.dim_param or "any" for axis in tensor.shape.dim)
        return cls(port.name, tensor.elem_type, axes)


@dataclass(frozen=True, eq=False)
class Published:
    """A published graph with its outside data read into it.

    Attributes:
        name: Of its file.
        model: The graph.
        port: Its input of images or tokens.
        output: Its embedding.
        mask: Its second input, a mask of the tokens, if it has one.
        digest: SHA-256 over the graph and its data.
        files: The graph and its data, where they are.
        precision: ``fp16`` if it has weights in float16, else ``fp32``.
    """

    name: str
    model: onnx.ModelProto
    port: Port
    output: Port
    mask: Port | None
    digest: str
    files: tuple[Path, ...]
    precision: str


def read_graph(source: Source, name: str, inputs: Sequence[str]) -> Published:
    """Read a published graph.

    Args:
        source: Where it is.
        name: Its file.
        inputs: Names that its input may have.

    Raises:
        ConfigError: It is not ONNX, wants other inputs, has operators that onnxruntime does not have or no output with
            one embedding for each item, or its data are elsewhere or above 2 GiB.
    """
    _limited(source.size(name), source, name)
    path = source.get(name)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own errors share no base class
        raise ConfigError(f"{path}: not a readable ONNX file ({error})") from None
    weights = {tensor.name for tensor in model.graph.initializer}
    ports = {port.name: Port.of(port) for port in model.graph.input if port.name not in weights}
    accepted = [port for port in ports if port in inputs]
    if len(accepted) != 1 or ports.keys() - {accepted[0], MASK}:
        raise ConfigError(f"{path}: expected one input, {' or '.join(inputs)}, got {', '.join(ports)}")
    axes = 4 if inputs is IMAGE_INPUTS else 2
    if len(ports[accepted[0]].shape) != axes:
        raise ConfigError(f"{path}: expected {axes} axes of input {accepted[0]}, got {[*ports[accepted[0]].shape]}")
    own = {function.domain for function in model.functions} | {*DOMAINS}
    if custom := sorted(f"{node.domain}:{node.op_type}" for node in model.graph.node if node.domain not in own):
        raise ConfigError(f"{path}: needs the custom operator {custom[0]}, which onnxruntime does not have")
    outputs = {port.name: Port.of(port) for port in model.graph.output}
    flat = [name for name, port in outputs.items() if len(port.shape) == 2]
    output = next((port for port in OUTPUTS if port in flat), flat[0] if len(flat) == 1 else None)
    if output is None:
        raise ConfigError(f"{path}: expected an output {', '.join(OUTPUTS)} (N, D), got {', '.join(outputs)}")
    files = (path, *_read_data(model, source, name))
    digest = hashlib.sha256("".join(file_entry(file).sha256 for file in files).encode()).hexdigest()
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    precision = "fp16" if half else "fp32"
    return Published(name, model, ports[accepted[0]], outputs[output], ports.get(MASK), digest, files, precision)


def _read_data(model: onnx.ModelProto, source: Source, name: str) -> list[Path]:
    """Read outside data of a model's weights into it; return their files, each a file next to the graph."""
    files: dict[str, Path] = {}
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    sizes = [_bytes_of(tensor, f"{source.label}: {name}") for tensor in outside]
    _limited(model.ByteSize() + sum(sizes), source, name)
    for tensor, size in zip(outside, sizes, strict=True):
        about = {entry.key: entry.value for entry in tensor.external_data}
        location, offset = about.get("location", ""), about.get("offset", "0")
        if location in ("", ".", "..") or {"/", "\\"} & {*location}:
            raise ConfigError(f"{source.label}: {name} refers to data beyond its folder: {location!r:.80}")
        file = PurePosixPath(name).with_name(location).as_posix()
        if not source.has(file):
            raise ConfigError(f"{source.label}: {name} needs its data, {file}, which is missing")
        if file not in files:
            _limited(source.size(file), source, name)
            files[file] = source.get(file)
        if offset.isdecimal() and int(offset) <= source.size(file) and about.get("length", str(size)) == str(size):
            with files[file].open("rb") as stream:
                stream.seek(int(offset))
                tensor.raw_data = stream.read(size)
        if len(tensor.raw_data) != size:
            raise ConfigError(f"{source.label}: {file}: expected {size:,} bytes of weights for {tensor.name!r:.80}")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return [files[file] for file in sorted(files)]


def _bytes_of(tensor: onnx.TensorProto, label: str) -> int:
    """Return the size of a tensor's values."""
    try:
        size: int = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        size = -1
    if size < 0 or min(tensor.dims, default=0) < 0:
        raise ConfigError(f"{label}: weights {tensor.name!r:.80} have no type or shape that ONNX knows")
    return size


def _limited(size: int, source: Source, name: str) -> None:
    if size > LIMIT:
        half = name.removesuffix(".onnx") + "_fp16.onnx"
        hint = f"; use --precision fp16, the publisher's {half}" if source.has(half) else ""
        raise ConfigError(f"{source.label}: {name} has {size:,} bytes with its data; a bundle's graph 2 GiB{hint}")


def write_wrapped(path: Path, tower: Published, port: str, end_token: int) -> None:
    """Write a published graph with our nodes around it, and free its weights.

    Args:
        path: The file.
        tower: The graph.
        port: Our name of its input, ``pixels`` (N, 3, S, S) or ``tokens`` (N, L).
        end_token: The mask has ones through the first such token, or everywhere if there is none.

    Raises:
        ConfigError: It is not a sound graph.
        OSError: It cannot be written.
    """
    try:
        write_file(path, _wrapped(tower, port, end_token).SerializeToString(deterministic=True))
        tower.model.Clear()
        onnx.checker.check_model(str(path), full_check=True)
    except OSError:
        raise
    except Exception as error:  # the checker's errors, and those of a graph in a graph without end, share no base class
        raise ConfigError(f"{tower.name}: not a sound graph ({error})") from None


def _wrapped(tower: Published, port: str, end_token: int) -> onnx.ModelProto:
    """Return a published graph with our nodes around it, which is the tower's own model, changed in place."""
    model = compose.add_prefix(tower.model, _PREFIX, inplace=True)
    graph, constants = model.graph, dict[str, int]()
    front = [helper.make_node("Cast", [port], [_PREFIX + tower.port.name], to=tower.port.kind)]
    if tower.mask:
        constants = {"end": end_token, "positions": 1, "none": 0}
        front += [
            helper.make_node("Equal", [port, "end"], ["is_end"]),
            helper.make_node("Cast", ["is_end"], ["ends"], to=TensorProto.INT64),
            helper.make_node("CumSum", ["ends", "positions"], ["ends_before"], exclusive=1),
            helper.make_node("Equal", ["ends_before", "none"], ["shown"]),
            helper.make_node("Cast", ["shown"], [_PREFIX + MASK], to=tower.mask.kind),
        ]
    back = [
        helper.make_node("Cast", [_PREFIX + tower.output.name], ["output"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["output"], ["embedding"], axis=-1, p=2),
    ]
    nodes = [*front, *_in_order(graph.node), *back]
    batch = 1 if tower.port.shape[0] == 1 else "batch"
    for field in ("node", "input", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    kind = TensorProto.FLOAT if port == "pixels" else TensorProto.INT64
    graph.input.append(helper.make_tensor_value_info(port, kind, [batch, *tower.port.shape[1:]]))
    shape = [batch, tower.output.shape[1]]
    graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape))
    return model


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes behind those that they read; converters to float16 append casts, which onnxruntime accepts."""
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    readers = {at: {makers[name] for name in _inputs(node) if name in makers} for at, node in enumerate(nodes)}
    return [nodes[at] for at in graphlib.TopologicalSorter(readers).static_order()]


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, those of graphs in it too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _inputs(inner)
