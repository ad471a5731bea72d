"""A published graph and the nodes around it: our names, casts, a mask, unit length; the graph itself stays as it is."""

from __future__ import annotations

import functools
import graphlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from sar_infer._arrays import Floats
from sar_infer.bundle.graph import refuse_external_data
from sar_infer.bundle.manifest import file_entry
from sar_infer.encoders.encoders import unit_rows
from sar_infer.encoders.sessions import open_session, run_options
from sar_infer.encoders.waiting import TRIAL_SECONDS, within
from sar_infer.errors import InputError, raised_as, reason_of
from sar_infer.storage.files import write_file
from sar_train.errors import ConfigError
from sar_train.export.importing.sources import Source
from sar_train.export.importing.tokens import MASK, NO_TOKEN

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
    """

    name: str
    model: onnx.ModelProto
    port: Port
    output: Port
    mask: Port | None
    digest: str


def read_graph(source: Source, name: str, inputs: Sequence[str]) -> Published:
    """Read a published graph.

    Args:
        source: Where it is.
        name: Its file.
        inputs: Names that its input may have.

    Raises:
        ConfigError: It wants other inputs, has operators that onnxruntime does not have or no output with one
            embedding for each item, or its data are elsewhere or above 2 GiB.
        InputError: It is not ONNX.
    """
    _limited(source.size(name), source, name)
    path = source.get(name)
    with raised_as(InputError, f"{path}: not a readable ONNX file"):
        model = onnx.load(str(path), load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    ports = {port.name: Port.of(port) for port in model.graph.input if port.name not in weights}
    mask = ports.pop(MASK, None)
    if len(ports) != 1 or not ports.keys() & {*inputs}:
        raise ConfigError(f"{path}: expected one input, {' or '.join(inputs)}, got {', '.join(ports)}")
    (port,), axes = ports.values(), 4 if inputs is IMAGE_INPUTS else 2
    if len(port.shape) != axes:
        raise ConfigError(f"{path}: expected {axes} axes of input {port.name}, got {[*port.shape]}")
    own = {function.domain for function in model.functions} | {*DOMAINS}
    if custom := sorted(f"{node.domain}:{node.op_type}" for node in model.graph.node if node.domain not in own):
        raise ConfigError(f"{path}: needs the custom operator {custom[0]}, which onnxruntime does not have")
    outputs = {port.name: Port.of(port) for port in model.graph.output}
    flat = [name for name, port in outputs.items() if len(port.shape) == 2]
    output = next((port for port in OUTPUTS if port in flat), flat[0] if len(flat) == 1 else None)
    if output is None:
        raise ConfigError(f"{path}: expected an output {', '.join(OUTPUTS)} (N, D), got {', '.join(outputs)}")
    digests = "".join(file_entry(file).sha256 for file in (path, *_read_data(model, source, name)))
    return Published(name, model, port, outputs[output], mask, hashlib.sha256(digests.encode()).hexdigest())


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
            tensor.raw_data = np.fromfile(files[file], np.uint8, size, offset=int(offset)).tobytes()
        if len(tensor.raw_data) != size:
            raise ConfigError(f"{source.label}: {file}: expected {size:,} bytes of weights for {tensor.name!r:.80}")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return [files[file] for file in sorted(files)]


def _bytes_of(tensor: onnx.TensorProto, label: str) -> int:
    """Return the size of a tensor's values."""
    if tensor.data_type not in helper.get_all_tensor_dtypes() or min(tensor.dims, default=0) < 0:
        raise ConfigError(f"{label}: weights {tensor.name!r:.80} have no type or shape that ONNX knows")
    size: int = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size


def _limited(size: int, source: Source, name: str) -> None:
    if size > LIMIT:
        half = name.removesuffix(".onnx") + "_fp16.onnx"
        hint = f"; use --precision fp16, the publisher's {half}" if source.has(half) else ""
        raise ConfigError(f"{source.label}: {name} has {size:,} bytes with its data; a bundle's graph 2 GiB{hint}")


def write_wrapped(
    path: Path, tower: Published, port: str, items: npt.NDArray[Any], end_token: int = NO_TOKEN
) -> Floats:
    """Write a published graph with our nodes around it: casts, a mask of the tokens, unit length; free its weights.

    Args:
        path: The file.
        tower: The graph.
        port: Our name of its input, ``pixels`` (N, 3, S, S) or ``tokens`` (N, L).
        items: Pixels or tokens.
        end_token: The mask has ones through the first such token, or everywhere if there is none.

    Returns:
        Unit rows (N, D) of the published graph for ``items``.

    Raises:
        ConfigError: onnxruntime cannot run the published graph, or it takes too long.
        BundleError: onnxruntime does not accept it.
        InputError: It is not a sound graph.
        OSError: It cannot be written.
    """
    published = path.with_name(f"published_{path.name}")
    write_file(published, tower.model.SerializeToString())
    refuse_external_data(published)
    rows = _published_rows(tower, published, items, end_token)
    published.unlink()
    with raised_as(InputError, f"{tower.name}: not a sound graph"):
        model = compose.add_prefix(tower.model, _PREFIX, inplace=True)
        graph = model.graph
        front = [helper.make_node("Cast", [port], [_PREFIX + tower.port.name], to=tower.port.kind)]
        if tower.mask:
            front += [
                helper.make_node("Equal", [port, "end"], ["is_end"]),
                helper.make_node("Cast", ["is_end"], ["ends"], to=TensorProto.INT64),
                helper.make_node("CumSum", ["ends", "positions"], ["ends_before"], exclusive=1),
                helper.make_node("Equal", ["ends_before", "none"], ["shown"]),
                helper.make_node("Cast", ["shown"], [_PREFIX + MASK], to=tower.mask.kind),
            ]
            for name, value in {"end": end_token, "positions": 1, "none": 0}.items():
                graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        back = [
            helper.make_node("Cast", [_PREFIX + tower.output.name], ["output"], to=TensorProto.FLOAT),
            helper.make_node("LpNormalization", ["output"], ["embedding"], axis=-1, p=2),
        ]
        nodes = [*front, *_in_order(graph.node), *back]
        for field in ("node", "input", "output", "value_info"):
            graph.ClearField(field)
        graph.node.extend(nodes)
        kind = TensorProto.FLOAT if port == "pixels" else TensorProto.INT64
        batch = 1 if tower.port.shape[0] == 1 else "batch"
        graph.input.append(helper.make_tensor_value_info(port, kind, [batch, *tower.port.shape[1:]]))
        shape = [batch, tower.output.shape[1]]
        graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape))
        content = model.SerializeToString(deterministic=True)
        model.Clear()
        onnx.checker.check_model(content, full_check=True)
    write_file(path, content)
    return rows


def _published_rows(tower: Published, graph: Path, items: npt.NDArray[Any], end_token: int) -> Floats:
    """Return unit rows (N, D) of a published graph for pixels or tokens (N, ...), run one by one."""
    session, options = open_session(graph, "cpu"), run_options()
    inputs = {tower.port: items}
    if tower.mask:
        ends = items == end_token
        inputs[tower.mask] = ends.cumsum(1) - ends == 0
    feed = {port.name: value.astype(helper.tensor_dtype_to_np_dtype(port.kind)) for port, value in inputs.items()}

    def run(row: int) -> Floats:
        one = {name: value[row : row + 1] for name, value in feed.items()}
        rows: Floats = session.run([tower.output.name], one, options)[0]
        return rows

    try:
        stop = functools.partial(setattr, options, "terminate", True)
        rows = [within(TRIAL_SECONDS, functools.partial(run, row), stop) for row in range(len(items))]
    except TimeoutError:
        raise ConfigError(f"{tower.name}: has given no answer within {TRIAL_SECONDS:g} s") from None
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ConfigError(f"{tower.name}: onnxruntime cannot run this graph: {reason_of(error)}") from None
    shapes = {row.shape for row in rows}
    if len(shapes) != 1 or rows[0].ndim != 2 or len(rows[0]) != 1:
        raise ConfigError(f"{tower.name}: expected an embedding (1, D) of each input, got {sorted(shapes)}")
    return unit_rows(np.concatenate(rows).astype(np.float32))


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
