"""Smaller graphs of a bundle's image encoder, made with onnxruntime's tools; see ``docs/handover.md``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers import float16

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Place, open_bundle
from sar_infer.bundle.manifest import CARD, IMAGE_ENCODER, Manifest, Preprocess, Variant
from sar_infer.bundle.writing import link_or_copy, seal, staged
from sar_infer.classifier import Classifier
from sar_infer.encoders.encoders import ImageEncoder, finite
from sar_infer.encoders.parity import Check, Logits, same_answer
from sar_infer.encoders.processor import processor
from sar_infer.encoders.self_test import self_test_cosine, self_test_pixels
from sar_infer.encoders.sessions import open_session
from sar_train.clip.backbone import quiet
from sar_train.errors import ConfigError
from sar_train.export.graph import OUTPUT, write_graph
from sar_train.export.parity import pixels_of
from sar_train.export.sealing import refuse
from sar_train.training.versions import versions

LEAST_COSINE, LEAST_AGREEMENT = 0.99, 0.95
"""The gate: mean cosine to float32, and share of photos with the same best class of the bank."""
LEAST_PHOTOS, MOST_CALIBRATION, MOST_PHOTOS = 40, 128, 1128
BATCH = 8
FIRST = 2
"""Convolutions that stay in float32: rounding costs most in those that read the image itself, and they are few."""
FLOAT32 = ["BatchNormalization", "Gelu", "LayerNormalization", "ReduceL2", "ReduceMean"]
"""Operators that stay in float32, as their sums exceed float16.

Gelu in float16, as in ViT-B/32, ends other programs than ours with onnxruntime 1.31: see ``encoders/sessions.py``.
"""
STEPS = 127
"""Steps of a weight's scale on either side of zero."""
ROUNDS = 15


def shrink(
    source: Place,
    out: Path,
    photos: Sequence[Path],
    precisions: Sequence[str],
    *,
    command: str,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a new bundle with smaller graphs of the image encoder, each compared with float32 on photos.

    Files that stay the same become hard links if the file system has them.

    Args:
        source: the bundle; may be the same as ``out`` with ``overwrite``.
        out: the new folder.
        photos: at most 128 of them calibrate, others are compared on; copies count once.
        precisions: ``fp16``, ``int8`` or both.
        command: the command line, for the manifest.
        overwrite: replace a bundle that is there.
        tell: called with lines of progress.

    Raises:
        ConfigError: too few photos differ.
        ExportError: a graph does not pass the gate; nothing was changed.
        BundleError: the source is damaged.
        ImageError: a photo cannot be read.
        WriteError: the folder cannot be written.
    """
    bundle = open_bundle(source)
    before, original = bundle.manifest, bundle.path / IMAGE_ENCODER
    by_digest = {hashlib.sha256(p.read_bytes()).digest(): p for p in photos[:: -(-len(photos) // MOST_PHOTOS) or 1]}
    paths = [path for _, path in sorted(by_digest.items())]
    if len(paths) < LEAST_PHOTOS:
        raise ConfigError(f"--photos: {len(paths)} photos that differ; expected {LEAST_PHOTOS} or more: add photos")
    count = min(MOST_CALIBRATION, len(paths) // 2)
    calibration, judging = paths[:count], paths[count:]
    classifier = Classifier(bundle, device="cpu")
    tell(f"encoding {len(judging):,} photos in float32")
    reference = _rows(original, judging, before)
    logits: Logits = lambda rows: rows @ reference.T  # noqa: E731 - without classes, each photo is a class
    if bundle.bank.names:
        logits = functools.partial(classifier.logits, classes=classifier.class_set())
    variants = dict(before.precisions)
    with staged(out, overwrite=overwrite) as folder:
        for name in before.files.keys() - {CARD}:
            link_or_copy(bundle.path / name, folder / name)
        for precision in precisions:
            tell(f"making the image encoder in {precision}")
            path = folder / f"image_encoder.{precision}.onnx"
            path.unlink(missing_ok=True)
            batches = functools.partial(_batches, calibration, before.preprocess)
            write_graph(path, in_float16(original) if precision == "fp16" else in_int8(original, batches))
            tell("comparing it with float32")
            variants[precision] = _compared(path, original, judging, before, reference, logits)
        manifest = dataclasses.replace(before, precisions=variants)
        return seal(folder, manifest, bundle.bank, command, versions()).manifest


def in_float16(path: Path) -> onnx.ModelProto:
    """Return a graph in float16; its input and output stay in float32."""
    with _prepared(path) as (model, _):
        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *FLOAT32]
        small = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    unique = {node.output[0]: node for node in small.graph.node}  # the converter casts a shared constant twice
    del small.graph.node[:]
    small.graph.node.extend(unique.values())
    for node in small.graph.node:
        node.output[:] = ["rounded" if name == OUTPUT else name for name in node.output]
    small.graph.node.append(onnx.helper.make_node("LpNormalization", ["rounded"], [OUTPUT], axis=-1, p=2))
    ordered = onnx_ir.from_proto(small)
    ordered.graph.sort()  # the converter leaves its casts at the end
    result: onnx.ModelProto = onnx_ir.to_proto(ordered)
    return result


def in_int8(path: Path, batches: Callable[[], Iterator[Floats]]) -> onnx.ModelProto:
    """Return a graph in INT8: convolutions with the ranges that photos show, transformers with ranges at run time.

    Args:
        path: the float32 graph.
        batches: gives the calibration photos as inputs (N, 3, size, size).
    """
    with _prepared(path) as (model, folder):
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        results = {node.output[0] for node in convolutions[:FIRST]}
        bounds = [n for n in model.graph.node if n.op_type in ("Clip", "Relu") and n.input[0] in results]
        types = {"per_channel": True, "weight_type": quantization.QuantType.QInt8}
        if not any(node.op_type == "LayerNormalization" for node in model.graph.node):  # no transformer
            inputs = ({model.graph.input[0].name: batch} for batch in _accepted(model, batches()))
            reader = SimpleNamespace(get_next=lambda: next(inputs, None))
            _correct_biases(model, convolutions[FIRST:], _accepted(model, batches()))
            quantization.quantize_static(
                model,
                folder / "int8.onnx",
                reader,
                nodes_to_exclude=[node.name for node in (*convolutions[:FIRST], *bounds)],
                activation_type=quantization.QuantType.QUInt8,
                **types,
            )
        else:
            quantization.quantize_dynamic(model, folder / "int8.onnx", op_types_to_quantize=["MatMul", "Gemm"], **types)
        small: onnx.ModelProto = onnx.load(folder / "int8.onnx")
        return small


def _accepted(model: onnx.ModelProto, batches: Iterator[Floats]) -> Iterator[Floats]:
    """Return batches as a graph accepts them: one by one if its batch is fixed."""
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value != 1:
        return batches
    return (batch[row : row + 1] for batch in batches for row in range(len(batch)))


def _correct_biases(model: onnx.ModelProto, convolutions: Sequence[onnx.NodeProto], batches: Iterator[Floats]) -> None:
    """Subtract from each bias the mean over photos of what rounding the weights adds to the convolution's output.

    This is the bias correction of Nagel et al. (arXiv 1906.04721, section 4.2). A copy of the graph measures the means:
    each convolution has a second one with the rounding errors as weights.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    biased = {f"{node.output[0]}:error": node for node in convolutions if len(node.input) > 2}
    if not biased:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name, node in biased.items():
        weights = onnx.numpy_helper.to_array(tensors[node.input[1]])
        step = np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True) / STEPS, np.finfo(np.float32).tiny)
        errors = onnx.numpy_helper.from_array(np.rint(weights / step) * step - weights, f"{name}:weights")
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name, twin.input[:], twin.output[:] = name, [node.input[0], errors.name], [f"{name}:map"]
        probe.graph.initializer.append(errors)
        probe.graph.node.extend([twin, onnx.helper.make_node("GlobalAveragePool", twin.output, [name])])
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    means = [session.run([*biased], {model.graph.input[0].name: batch}) for batch in batches]
    for (name, node), values in zip(biased.items(), zip(*means, strict=True), strict=True):
        corrected = onnx.numpy_helper.to_array(tensors[node.input[2]]) - np.concatenate(values).mean((0, 2, 3))
        node.input[2] = f"{name}:bias"  # equal biases are one tensor
        model.graph.initializer.append(onnx.numpy_helper.from_array(corrected, node.input[2]))
    ONNXModel(model).clean_initializers()


@contextlib.contextmanager
def _prepared(path: Path) -> Iterator[tuple[onnx.ModelProto, Path]]:
    """Load a graph with constants computed and batch norms folded, and a temporary folder, and silence the tools."""
    with quiet(), warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as name:
        quant_pre_process(str(path), f"{name}/plain.onnx", skip_symbolic_shape=True)
        model = onnx.load(f"{name}/plain.onnx")
        if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
            raise ConfigError(f"{path}: computes in float16; expected float32: import the publisher's fp32 graphs")
        yield model, Path(name)


def _compared(
    path: Path, source: Path, photos: Sequence[Path], manifest: Manifest, reference: Floats, logits: Logits
) -> Variant:
    """Return the figures of a smaller graph; raise ExportError if it does not pass the gate."""
    rows, stored = _rows(path, photos, manifest), manifest.self_test
    cosines = (rows * reference).sum(1)
    pixels = self_test_pixels(manifest.preprocess, stored.seed)[np.newaxis]
    variant = Variant(
        path.name,
        len(photos),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        top1_agreement=float(same_answer(rows, reference, logits).mean()),
        speedup=round(speedup(source, path, pixels), 2),
        self_test_cosine=self_test_cosine(stored, ImageEncoder(path, manifest.embed_dim, "cpu").encode(pixels)[0]),
        processor=processor(),
    )
    what = f"{path.name} on {len(photos):,} photos"
    refuse(
        Check(f"{what}, mean cosine to float32", variant.mean_cosine, "at least", LEAST_COSINE),
        Check(f"{what}, share with the class of float32", variant.top1_agreement, "at least", LEAST_AGREEMENT),
    )
    return variant


def _rows(path: Path, photos: Sequence[Path], manifest: Manifest) -> Floats:
    """Encode photos, read again for each graph so that memory does not grow with their number."""
    encoder = ImageEncoder(path, manifest.embed_dim, "cpu")
    rows = [encoder.encode(batch) for batch in _batches(photos, manifest.preprocess)]
    return finite(np.concatenate(rows), str(path))


def _batches(photos: Sequence[Path], spec: Preprocess) -> Iterator[Floats]:
    for start in range(0, len(photos), BATCH):
        yield np.stack([pixels_of(path, spec) for path in photos[start : start + BATCH]])


def speedup(reference: Path, path: Path, batch: Floats) -> float:
    """Return how many times as fast one graph is as another, on one thread: medians of alternating runs.

    The thread's own time is measured, so that other programs disturb little.
    """
    sessions = [open_session(graph, "cpu", 1) for graph in (reference, path)]
    timings: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for session, seconds in zip(sessions, timings, strict=True):
            start = time.thread_time()
            session.run(None, {session.get_inputs()[0].name: batch})
            seconds.append(time.thread_time() - start)
    slow, fast = (float(np.median(seconds[1:])) for seconds in timings)  # the first runs are warm-up
    return slow / fast
