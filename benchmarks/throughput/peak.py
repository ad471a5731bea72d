"""Measure the peak of the machine: square products in float32 and INT8, the best of libraries and sizes.

A process of its own, started with the cores and threads that it may use; prints JSON: by library, thousand million
operations a second, two for each multiply-add.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

SIZES = (512, 1024, 2048)
_SECONDS = 0.6
Product = Callable[[], object]


def main() -> None:
    """Measure and print."""
    cores = [int(core) for core in os.environ["SAR_BENCH_CORES"].split(",")]
    os.sched_setaffinity(0, cores)
    speeds: dict[str, float] = {}
    for size in SIZES:
        for name, product in (*with_arrays(size, len(cores)), *with_onnxruntime(size, len(cores))):
            speeds[name] = max(speeds.get(name, 0.0), 2e-9 * size**3 / fastest(product))
    print(json.dumps(speeds))


def fastest(product: Product) -> float:
    """Seconds of the quickest of many runs."""
    product()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        product()
        best = min(best, time.perf_counter() - start)
    return best


def with_arrays(size: int, threads: int) -> Iterator[tuple[str, Product]]:
    """NumPy's and torch's own."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    first, second = (np.random.default_rng(seed).random((size, size), dtype=np.float32) for seed in (0, 1))
    out = np.empty_like(first)
    yield "numpy", lambda: np.matmul(first, second, out=out)
    left, right = torch.from_numpy(first), torch.from_numpy(second)
    yield "torch", lambda: torch.mm(left, right)


def with_onnxruntime(size: int, threads: int) -> Iterator[tuple[str, Product]]:
    """MatMul and MatMulInteger with constant weights, as in an encoder."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(0)
    forms = {
        "onnxruntime": ("MatMul", np.float32, np.float32, TensorProto.FLOAT, TensorProto.FLOAT),
        "onnxruntime INT8": ("MatMulInteger", np.uint8, np.int8, TensorProto.UINT8, TensorProto.INT32),
    }
    for name, (operator, kind_of_input, stored, source, target) in forms.items():
        pixels, weights = (chance.integers(0, 100, (size, size)).astype(kind) for kind in (kind_of_input, stored))
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", source, [size, size])],
            [helper.make_tensor_value_info("y", target, [size, size])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        binding = session.io_binding()
        binding.bind_cpu_input("x", pixels)
        binding.bind_output("y")
        yield name, lambda session=session, binding=binding: session.run_with_iobinding(binding)  # type: ignore[misc]


if __name__ == "__main__":
    main()
