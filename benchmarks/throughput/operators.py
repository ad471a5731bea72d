"""Break down the time of an image encoder by operator, against what the machine could do: its roofline.

    python -m benchmarks.throughput.operators [--models sar-mini vit-b-32 vit-b-16] [--batch 8] [--runs 20]

onnxruntime's own profile on one core, the median of each node over the runs. The bound of a node is what its products
take at the fastest product of ``peak``, or what its inputs, weights and outputs take at the speed of a copy in memory,
whichever is longer; an operator whose data stay in the cache can be faster than that. Channels are counted as
onnxruntime pads them, to multiples of 8 or 16. Prints Markdown.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import command
from benchmarks.throughput import models
from benchmarks.throughput.__main__ import peaks
from benchmarks.throughput.models import ROOT
from sar_infer.bundle.manifest import IMAGE_ENCODER

_CONV, _MATRIX = ("Conv", "FusedConv"), ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
_SHOWN = 0.01
HEADS = ("operator", "nodes", "of the time", "ms an image", "GFLOP/s", "of the peak", "roofline, ms", "of the roofline")


@dataclass
class Row:
    """Sums over the nodes of one operator, for one run of a batch.

    Attributes:
        seconds: What it took.
        bound: What the roofline says.
        flops: Of its products.
        nodes: How many there are.
    """

    seconds: float = 0.0
    bound: float = 0.0
    flops: float = 0.0
    nodes: int = 0


def main() -> None:
    """Print a table for each model and precision."""
    options = command.options(
        __doc__,
        models=list(models.NAMES),
        batch=(8, "images of a run"),
        runs=(20, "runs that are timed"),
        cache=(ROOT / "results" / "throughput", "folder of the bundles"),
    )
    speeds = peaks([1])["1"]
    bandwidth = copied()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    listed = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    print(f"One core: {listed} thousand million operations a second; a copy {bandwidth / 1e9:.1f} GB/s.")
    for name in options.models:
        path = models.prepared(name, options.cache, None).bundle / IMAGE_ENCODER
        peak = 1e9 * max(speeds[kind] for kind in ("numpy", "torch", "onnxruntime"))
        rows = by_operator(profile(path, options.batch, options.runs), peak, bandwidth)
        print(f"\n### {name}, fp32, batches of {options.batch}\n")
        print(command.markdown(HEADS, table(rows, options.batch, peak)))


def copied() -> float:
    """Return bytes read and written in a second by a copy that no cache holds."""
    source = np.ones(2**26, np.float32)
    target, best = np.empty_like(source), math.inf
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def profile(path: Path, batch: int, runs: int) -> list[list[dict[str, Any]]]:
    """Return the events of each node, one list a node, over the runs; sessions are opened as ``sar_infer`` does."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        pixels = np.random.default_rng(0).random((batch, *source.shape[1:]), dtype=np.float32)
        for _ in range(runs + 2):
            session.run(None, {source.name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"]].append(event)
    return [runs[2:] for runs in nodes.values()]  # the first runs allocate


def by_operator(nodes: list[list[dict[str, Any]]], peak: float, bandwidth: float) -> Mapping[str, Row]:
    """Return the sums of each operator.

    Args:
        nodes: See ``profile``.
        peak: Operations a second.
        bandwidth: Bytes a second.
    """
    rows: defaultdict[str, Row] = defaultdict(Row)
    for events in nodes:
        arguments = events[0]["args"]
        row, flops = rows[kind_of(arguments)], flops_of(arguments)
        moved = sum(int(arguments[key]) for key in ("activation_size", "parameter_size", "output_size"))
        row.seconds += 1e-6 * statistics.median(event["dur"] for event in events)
        row.bound += max(flops / peak, moved / bandwidth)
        row.flops += flops
        row.nodes += 1
    return rows


def kind_of(arguments: Mapping[str, Any]) -> str:
    """Return a node's operator; of convolutions also whether they are pointwise (1 x 1) or depthwise."""
    operator = str(arguments["op_name"])
    if operator not in _CONV:
        return operator
    _, inner, *kernel = _shapes(arguments["input_type_shape"])[1]
    return f"{operator}, {'pointwise' if math.prod(kernel) == 1 else 'depthwise' if inner == 1 else 'full'}"


def flops_of(arguments: Mapping[str, Any]) -> int:
    """Return two for each multiply-add of a node, by the shapes that its profile names; 0 if it is no product."""
    operator = arguments["op_name"]
    if operator not in (*_CONV, *_MATRIX):
        return 0
    inputs, outputs = _shapes(arguments["input_type_shape"]), _shapes(arguments["output_type_shape"])
    if operator in _CONV:
        return 2 * math.prod(outputs[0]) * math.prod(inputs[1][1:])
    return 2 * math.prod(outputs[0]) * inputs[0][-1]


def table(rows: Mapping[str, Row], batch: int, peak: float) -> Iterator[tuple[object, ...]]:
    """Yield the operators that take most of the time, the rest in one row, and all of them."""
    total = _sum(rows.values()).seconds
    order = sorted(rows, key=lambda name: -rows[name].seconds)
    shown = [name for name in order if rows[name].seconds >= _SHOWN * total]
    rest = _sum(rows[name] for name in order if name not in shown)
    for name, row in [*((name, rows[name]) for name in shown), ("others", rest), ("all", _sum(rows.values()))]:
        rate = row.flops / row.seconds if row.seconds else 0.0
        products = (f"{rate / 1e9:.0f}", f"{rate / peak:.0%}") if row.flops else ("", "")
        roofline = f"{1e3 * row.bound / batch:.2f}", f"{row.bound / row.seconds if row.seconds else 0:.0%}"
        yield name, row.nodes, f"{row.seconds / total:.0%}", f"{1e3 * row.seconds / batch:.2f}", *products, *roofline


def _sum(rows: Any) -> Row:
    total = Row()
    for row in rows:
        total.seconds += row.seconds
        total.bound += row.bound
        total.flops += row.flops
        total.nodes += row.nodes
    return total


def _shapes(listed: list[dict[str, list[int]]]) -> list[tuple[int, ...]]:
    return [tuple(shape) for one in listed for shape in one.values()]


if __name__ == "__main__":
    main()
