"""One ONNX file from pixels to scores, for every language that has onnxruntime; ``docs/one_file.md`` describes it.

Three graphs are joined: resize, crop and normalisation as `sar_infer.images.preprocess` does them, the bundle's image
encoder, and the scores of the classes with the decision of ``sar-classify --unknown``. The file gets its name once
onnxruntime agrees with the package on generated images.

Pillow resizes the width first, then the height, each to 8 bits with weights in steps of 2^-22. Two ``Resize`` nodes on
uint8 that ignore what is beyond the edge do the same, with scales in float32. Few pixels differ, by one grey level.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.metadata
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import compose, helper, numpy_helper, parser, version_converter
from PIL import Image

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, PhotoSet, add
from sar_infer.bank.steps import Log
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import Preprocess
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import can_call_unknown
from sar_infer.classify.fitting import pinned
from sar_infer.classify.several import least as least_of
from sar_infer.encoders.parity import MIN_COSINE, Check
from sar_infer.encoders.precision import PrecisionChoice
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import InputError
from sar_infer.images.load import MAX_RATIO
from sar_infer.images.preprocess import CROPS, crops_to_input, to_input
from sar_infer.results import DecisionOptions, ImageResult
from sar_infer.storage.files import write_atomically
from sar_infer.storage.tensor_file import file_pieces
from sar_train.errors import ExportError

OUTPUTS = ("scores", "answer", "unknown", "embedding", "logits")
OUTPUTS_OF_SEVERAL = ("scores", "labels", "crops", "unknown", "embedding", "logits")
LEAST_COSINE = {"fp32": MIN_COSINE, "fp16": MIN_COSINE, "int8": 0.999}
"""To the package's own embedding; INT8 rounds a difference of one grey level up."""
MOST_DIFFERENCE = {"fp32": 1e-3, "fp16": 1e-3, "int8": 0.02}
"""Of a score, and of the probability of *unknown*, to the package's own."""
SIZES = ((257, 255), (40, 50), (301, 97), (800, 600), (30, 900))
"""Widths and heights of the generated images."""
ANTIALIAS = 18
"""First version of ONNX's operators whose ``Resize`` has it."""
_TARGETS = {
    "squash": "target = Identity (square)",
    "shortest": """
        short = ReduceMin <keepdims = 1> (sides)
        scaled = Mul (sides, square)
        target = Div (scaled, short)""",
    "longest": """
        exact = Cast <to = 11> (sides)
        long = ReduceMax <keepdims = 1> (exact)
        side = Cast <to = 11> (square)
        ratio = Div (long, side)
        scaled = Div (exact, ratio)
        nearest = Round (scaled)
        whole = Cast <to = 7> (nearest)
        target = Max (whole, one)""",
}
"""Height and width after the resize, from ``sides``, those of the image."""
_MIDDLE = """
        whole_shape = Shape (channels)
        whole_sides = Slice (whole_shape, two, four)
        thinner = ReduceMin <keepdims = 1> (whole_sides)
        longest = Mul (thinner, most_ratio)
        allowed = Min (whole_sides, longest)
        beyond = Sub (whole_sides, allowed)
        first = Div (beyond, two)
        last = Sub (whole_sides, first)
        middle_part = Slice (channels, first, last, axes)"""
"""The middle of an image that is thinner than the package accepts; enlarged whole, it would need gigabytes."""
_CROP = """
    excess = Sub (target, square)
    float_excess = Cast <to = 1> (excess)
    middle = Mul (float_excess, half)
    offset = {} (middle)
    begin = Cast <to = 7> (offset)
    end = Add (begin, square)
    fitted = Slice (resized, begin, end, axes)"""
_PAD = """
    margin = Sub (square, target)
    before = Div (margin, two)
    after = Sub (margin, before)
    pads = Concat <axis = 0> (zeros, before, zeros, after)
    fitted = Pad (resized, pads, fill)"""
_CROPS = """
        shape = Shape (channels)
        sides = Slice (shape, two, four)
        more = Add (sides, one)
        near = Div (more, two)
        far = Div (sides, two)
        crop0 = Identity (channels)"""
_QUARTER = """
        begin{0} = Mul (far, corner{0})
        end{0} = Add (begin{0}, near)
        crop{0} = Slice (channels, begin{0}, end{0}, axes)"""
"""The quarters of `sar_infer.images.preprocess.CROPS`; a side of a half rounds up."""
_LOGITS = """
    products = Gemm <transB = 1> (embedding, weights, bias)
    of_classes, line = Split <axis = 1> (products, parts)
    along = MatMul (embedding, unknown_axes)
    length = ReduceSumSquare <keepdims = 1> (along, axis)
    of_unknown = Sub (line, length)
    logits = Concat <axis = 1> (of_classes, of_unknown)"""
_HEAD = """
    scores = Softmax <axis = 1> (of_classes)
    total = ReduceLogSumExp <keepdims = 1> (of_classes, axis)
    apart = Sub (of_unknown, total)
    flat = Squeeze (apart, axis)
    unknown = Sigmoid (flat)
    candidates = Where (background, lowest, of_classes)
    best = ArgMax <axis = 1, keepdims = 0> (candidates)
    answers = Where (background, nothing, scores)
    others = Where (background, scores, nothing)
    best_score = ReduceMax <keepdims = 0> (answers, axis)
    best_background = ReduceMax <keepdims = 0> (others, axis)
    is_background = Greater (best_background, best_score)
    own = Gather (thresholds, best)
    without = IsNaN (own)
    limit = Gather (limits, best)
    too_unknown = Greater (unknown, limit)
    too_low = Less (best_score, own)
    rejected = And (without, too_unknown)
    doubtful = Or (too_low, rejected)
    none = Or (is_background, doubtful)
    answer = Where (none, minus_one, best)"""
_HEAD_OF_SEVERAL = """
    joint = Softmax <axis = 1> (logits)
    of_crops = Reshape (joint, by_crop)
    probabilities, strange = Split <axis = 2> (of_crops, parts)
    scores = ReduceMax <keepdims = 0> (probabilities, crop_axis)
    crops = ArgMax <axis = 0, keepdims = 0> (probabilities)
    reached = Greater (scores, least)
    labels = And (reached, answers)
    least_unknown = ReduceMin <keepdims = 0> (strange, crop_axis)
    unknown = Squeeze (least_unknown, axis)"""
"""Of rows of embeddings by crop: all images whole, then their first quarters, and so on."""


@dataclass(frozen=True)
class OneFile:
    """A file that was written: its number of classes, its size in bytes and the checks that it has passed."""

    classes: int
    size: int
    checks: tuple[Check, ...]


def write_one_file(
    bundle: Bundle,
    bank: ClassBank,
    out: Path,
    *,
    precision: PrecisionChoice = "fp32",
    batch: bool = False,
    several: bool = False,
) -> OneFile:
    """Write the file whole or not at all.

    Args:
        bundle: The bundle.
        bank: The classes, a bank of the bundle's encoder.
        out: The file.
        precision: The image encoder: ``fp32``, or a smaller one of the bundle.
        batch: The input is (N, H, W, 3), not (H, W, 3).
        several: Its outputs are each class that an image shows, as of `sar_infer.classify.several`.

    Raises:
        InputError: The bundle does not have this precision, or there is no class that can be an answer; or with
            ``several``, no class model was fitted.
        ExportError: The graphs cannot be joined, or the file does not agree with the package; nothing was written.
        OSError: The file cannot be written; an older one stays as it was.
    """
    bank = pinned(bank, bundle.bank, bundle.trained)
    classifier = Classifier(bundle, bank=bank, device="cpu", precision=precision)
    if not bank.can_answer:
        raise InputError("no class to choose from: the bank has none, or only background classes")
    classes = classifier.class_set()
    if several:
        least_of(classes)  # raises without a class model
    try:
        encoder = onnx.load(bundle.path / classifier.choice.image)
        if (batch or several) and encoder.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1:
            raise ValueError(f"its batch is fixed at one; leave --{'batch' if batch else 'several'} out")
        model = _joined(encoder, bundle.manifest.preprocess, classes, batch=batch, several=several)
        helper.set_model_props(model, _metadata(classifier, classes, bank, several=several))
        content = model.SerializeToString()
        if len(content) > onnx.checker.MAXIMUM_PROTOBUF:
            raise ValueError(f"{len(content):,} bytes do not fit one ONNX file")
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # protobuf, onnx's checker and its parser share no base class
        raise ExportError(f"{classifier.choice.image}: cannot be joined into one file: {error}") from error
    checks = tuple(_checks(content, classifier, classes, batch=batch, several=several))
    if failed := [check for check in checks if not check.passed]:
        raise ExportError(f"{out}: {failed[0]}; nothing was written")
    write_atomically(out, [content])
    return OneFile(len(classes.names), len(content), checks)


def _joined(
    encoder: onnx.ModelProto, spec: Preprocess, classes: ClassSet, *, batch: bool, several: bool
) -> onnx.ModelProto:
    """Return the graph from pixels to scores around an image encoder."""
    if any(one.domain in ("", "ai.onnx") and one.version < ANTIALIAS for one in encoder.opset_import):
        encoder = version_converter.convert_version(encoder, ANTIALIAS)  # as published towers may be
    versions = [(one.domain, one.version) for one in encoder.opset_import]
    header = f"<ir_version: {encoder.ir_version}, opset_import: [{', '.join(f'{d!r}: {v}' for d, v in versions)}]>"
    header = header.replace("'", '"')
    shape = "N, H, W, 3" if batch else "H, W, 3"
    images, pixels = _pixels(header, spec, shape, batch=batch, several=several)
    scores = _scores(header, classes, "N" if batch else "1", several=several)
    plain = onnx.ModelProto()
    plain.CopyFrom(encoder)
    rename = {"rename_inputs": False, "rename_outputs": False}
    plain = compose.add_prefix(plain, "encoder/", inplace=True, **rename)
    graphs = (*pixels, plain.graph, scores)
    outputs = {one.name: one for one in (*scores.output, *scores.input)}
    graph = helper.make_graph(
        [node for one in graphs for node in one.node],
        "sar-clip",
        images,
        [outputs[name] for name in (OUTPUTS_OF_SEVERAL if several else OUTPUTS)],
        [tensor for one in graphs for tensor in one.initializer],
    )
    model = helper.make_model(graph, opset_imports=encoder.opset_import, ir_version=encoder.ir_version)
    model.functions.extend(plain.functions)
    model.producer_name, model.producer_version = "sar-clip", importlib.metadata.version("sar-clip")
    note = "labels: the classes that it shows." if several else "answer: -1 is unknown."
    model.doc_string = f"image: uint8 RGB ({shape}), upright, transparency on grey {spec.fill}. {note}"
    return model


def _pixels(
    header: str, spec: Preprocess, shape: str, *, batch: bool, several: bool
) -> tuple[Sequence[onnx.ValueInfoProto], list[onnx.GraphProto]]:
    """Return the input of the graph, and the graphs from images to the encoder's pixels."""
    whole = {"zero": [0], "one": [1], "two": [2], "three": [3], "four": [4], "axes": [2, 3], "zeros": [0, 0]}
    constants: dict[str, Any] = {name: np.array(value, np.int64) for name, value in whole.items()}
    constants |= {
        "most_ratio": np.array([MAX_RATIO], np.int64),
        "square": np.array([spec.size, spec.size], np.int64),
        "half": np.float32(0.5),
        "fill": np.uint8(spec.fill),
        "largest": np.float32(255),
        "mean": np.array(spec.mean, np.float32).reshape(1, 3, 1, 1),
        "std": np.array(spec.std, np.float32).reshape(1, 3, 1, 1),
    }
    corners = {f"corner{number}": np.array([top, left], np.int64) for number, (left, top, *_) in _corners()}
    quarters = "".join(_QUARTER.format(number) for number, _ in _corners())
    first = parser.parse_model(f"""{header}
    image (uint8[{shape}] image) => (uint8[N, 3, H, W] channels) {{
        images = {"Identity (image)" if batch else "Unsqueeze (image, zero)"}
        channels = Transpose <perm = [0, 3, 1, 2]> (images)
        {_CROPS + quarters if several else ""}
    }}""").graph
    _add_constants(first, constants | corners)
    filters = {"bicubic": 'mode = "cubic", cubic_coeff_a = -0.5', "bilinear": 'mode = "linear"'}
    resize = f"Resize <{filters[spec.interpolation]}, antialias = 1, exclude_outside = 1>"
    fit = parser.parse_model(f"""{header}
    pixels (uint8[N, 3, H, W] channels) => (float[N, 3, {spec.size}, {spec.size}] pixels) {{
        {_MIDDLE if spec.resize_mode == "shortest" else "middle_part = Identity (channels)"}
        shape = Shape (middle_part)
        sides = Slice (shape, two, four)
        head = Slice (shape, zero, three)
        {_TARGETS[spec.resize_mode]}
        width = Slice (target, one, two)
        wide = Concat <axis = 0> (head, width)
        front = Slice (shape, zero, two)
        whole_size = Concat <axis = 0> (front, target)
        narrow = {resize} (middle_part, , , wide)
        resized = {resize} (narrow, , , whole_size)
        {_PAD if spec.resize_mode == "longest" else _CROP.format(spec.crop.capitalize())}
        floats = Cast <to = 1> (fitted)
        shares = Div (floats, largest)
        centred = Sub (shares, mean)
        pixels = Div (centred, std)
    }}""").graph
    if not several:
        shared = {tensor.name for tensor in first.initializer}
        _add_constants(fit, {name: value for name, value in constants.items() if name not in shared})
        return first.input, [first, fit]
    _add_constants(fit, constants)
    copies, names = [], [f"crop{number}/" for number in range(len(CROPS))]
    for name in names:
        first.node.append(helper.make_node("Identity", [name[:-1]], [f"{name}channels"]))
        copies.append(compose.add_prefix_graph(fit, name))
    copies[-1].node.append(helper.make_node("Concat", [f"{name}pixels" for name in names], ["pixels"], axis=0))
    return first.input, [first, *copies]


def _corners() -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield number and box of each quarter, whose left and top are 0 at a near side and above at a far one."""
    yield from ((n, tuple(map(math.ceil, box))) for n, box in enumerate(CROPS) if n)


def _scores(header: str, classes: ClassSet, n: str, *, several: bool) -> onnx.GraphProto:
    """Return the graph from embeddings to the outputs."""
    weights, bias = _linear(classes)
    count, dim = len(classes.names), weights.shape[1]
    rows = ("M" if n == "N" else len(CROPS)) if several else n
    outputs = f"float[{n}, {count}] scores, int64[{n}] answer, float[{n}] unknown"
    if several:
        outputs = (
            f"float[{n}, {count}] scores, bool[{n}, {count}] labels, int64[{n}, {count}] crops, float[{n}] unknown"
        )
    scores = parser.parse_model(f"""{header}
    head (float[{rows}, {dim}] embedding) => ({outputs}, float[{rows}, {count + 1}] logits) {{
        {_LOGITS + (_HEAD_OF_SEVERAL if several else _HEAD)}
    }}""").graph
    none = np.full(count, np.nan, np.float32)
    background = np.zeros(count, np.bool_) if classes.background is None else classes.background
    constants = {
        "weights": weights,
        "bias": bias,
        "parts": np.array([count, 1], np.int64),
        "axis": np.array([1], np.int64),
        "background": background,
        "thresholds": none if classes.thresholds is None else classes.thresholds.astype(np.float32),
        "limits": classes.unknown_thresholds.astype(np.float32),
        "unknown_axes": _axes(classes),
        "lowest": np.float32(np.finfo(np.float32).min),
        "nothing": np.float32(-1),
        "minus_one": np.int64(-1),
    }
    if several:
        constants |= {
            "crop_axis": np.array([0], np.int64),
            "by_crop": np.array([len(CROPS), -1, count + 1], np.int64),
            "least": least_of(classes).astype(np.float32),
            "answers": ~background,
        }
    _add_constants(scores, constants)
    return scores


def _add_constants(graph: onnx.GraphProto, constants: Mapping[str, Any]) -> None:
    """Add those that the graph reads."""
    read = {name for node in graph.node for name in node.input}
    needed = {name: np.asarray(value) for name, value in constants.items() if name in read}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in needed.items())


def _linear(classes: ClassSet) -> tuple[Floats, Floats]:
    """Return weights (C + 1, D) and bias (C + 1,) of the classes and of *unknown*."""
    linear, unknown = classes.linear, classes.linear.unknown
    weights = [*(rows * np.float32(factor) for rows, factor in linear.pieces), unknown.weights[np.newaxis]]
    bias = np.zeros(len(classes.names), np.float32) if linear.bias is None else linear.bias
    return np.concatenate(weights).astype(np.float32), np.append(bias, np.float32(unknown.bias)).astype(np.float32)


def _axes(classes: ClassSet) -> Floats:
    """Return the axes (D, R) of the distance of *unknown*; a column of zeros without them."""
    unknown = classes.linear.unknown
    if not unknown.gain:
        return np.zeros((len(unknown.weights), 1), np.float32)
    return unknown.axes.astype(np.float32) * np.float32(math.sqrt(unknown.gain))


def _metadata(classifier: Classifier, classes: ClassSet, bank: ClassBank, *, several: bool) -> dict[str, str]:
    """Return what a reader needs in addition to the graph, as text."""
    manifest, flags = classifier.bundle.manifest, classes.background
    least = {} if classes.thresholds is None else dict(zip(classes.names, classes.thresholds.tolist(), strict=True))
    tensors, teaching = _teaching(classifier, classes, bank)
    content: dict[str, Any] = {
        "class_names": [*classes.names],
        "background": [] if flags is None else [name for name, flag in zip(classes.names, flags, strict=True) if flag],
        "thresholds": {name: value for name, value in least.items() if not math.isnan(value)},
        "unknown_thresholds": classes.unknown_thresholds.round(6).tolist() if len(classes.model.unknown) else None,
        "licence": dict(manifest.provenance.licences),
        "fill": manifest.preprocess.fill,
        "teaching": teaching,
        **({"crops": CROPS} if several else {}),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()} | {
        "encoder_digest": manifest.encoder_digest,
        "bundle": manifest.digest,
        "backbone": manifest.backbone,
        "precision": classifier.choice.precision,
        "class_model": base64.b64encode(b"".join(file_pieces(tensors, {"format": "sar-class-model"}))).decode(),
        "bank": base64.b64encode(_bank_file(bank)).decode(),
    }


def _teaching(
    classifier: Classifier, classes: ClassSet, bank: ClassBank
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the class model as it is once a class with photos is added, and what that does to the other classes.

    ``factor`` multiplies their logits: a calibration ends, and names without photos and model are scaled down. A model
    that was never fitted has its centre at the mean of the taught classes, at the share ``around`` of it if there is
    one such class, and its text centre is the mean of ``texts`` names and the taught ones (0: it stays). Nothing is
    returned if there are photos that no model was fitted to: then all classes would change.
    """
    row = np.full(bank.dim, bank.dim**-0.5, np.float32)
    name = f"@{bank.encoder_digest}"
    taught = add(bank, [name], row[np.newaxis], {name: PhotoSet.of([bytes(32)], row[np.newaxis], photos_only=True)})
    model = classifier.class_set(bank=taught).model
    factor = float(np.linalg.norm(model.weights) / np.linalg.norm(classes.model.weights))
    move = np.zeros(bank.dim, np.float32) if classes.translation is None else classes.translation
    tensors = {**model.whole().tensors(), "text_centre": classes.model.text_centre, "translation": move}
    if model.photos:
        return tensors, {"factor": factor, "around": None, "texts": 0}
    texts = len(bank.names) if bank.base is None else 0
    return tensors, {} if classes.evidence else {"factor": factor, "around": float(row @ model.centre), "texts": texts}


def _bank_file(bank: ClassBank) -> bytes:
    """Return the bank file without history and embeddings of photos; of a bundle's bank only what differs."""
    plain = bank.settled()
    if bank.base is not None:
        base = dataclasses.replace(bank.base, path="")
        of_bank = {"next_key": bank.next_key, "images": bank.images, "provenance": bank.provenance}
        log = Log(folded=bank.changes).mapped(lambda _, entry: entry.bare())
        plain = ClassBank(bank.encoder_digest, bank.dim, log, base, **of_bank)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        plain.save(Path(folder) / "bank.safetensors")
        return (Path(folder) / "bank.safetensors").read_bytes()


def _images(spec: Preprocess, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield generated images (H, W, 3): noise of the encoder's size, and soft ones, one of them grey."""
    yield self_test_image(spec.size, seed)
    generator = np.random.default_rng(seed)
    for number, (width, height) in enumerate(SIZES):
        coarse = generator.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
        soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        yield np.asarray(soft.convert("L").convert("RGB") if number == 0 else soft)


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _checks(
    content: bytes, classifier: Classifier, classes: ClassSet, *, batch: bool, several: bool
) -> Iterator[Check]:
    """Compare a file with the package on generated images; answers are compared for the file's own embeddings."""
    manifest, precision = classifier.bundle.manifest, classifier.choice.precision
    names, size, prepare = (OUTPUTS_OF_SEVERAL, len(CROPS), crops_to_input) if several else (OUTPUTS, 1, to_input)
    options = DecisionOptions(several=several, unknown=not several and can_call_unknown(classes))
    session, decide = _session(content), classifier.decide(classes, len(classes.names), options)
    cosines, differences, others = [], [], 0
    for image in _images(manifest.preprocess, manifest.self_test.seed):
        own = classifier.embed_inputs([prepare(Image.fromarray(image), manifest.preprocess)])
        inputs = np.stack([image, image[::-1]]) if batch else image
        output = dict(zip(names, session.run(names, {"image": inputs}), strict=True))
        by_image = np.swapaxes(output["embedding"].reshape(size, -1, own.shape[1]), 0, 1)
        cosines.append(float((own * by_image[0]).sum(1).min()))
        (expected,) = decide(own)
        stated = dict(zip(classes.names, output["scores"][0], strict=True))
        if several:
            differences += [abs(one.score - stated[one.label]) for one in expected.predictions]
        else:
            (scores,) = classifier.scores(classifier.logits(own, classes))
            differences.append(np.abs(scores - output["scores"][0]).max())
        differences.append(abs(float(output["unknown"][0]) - (expected.unknown or 0.0)))
        compare = _other_labels if several else _other_answer
        for number, rows in enumerate(by_image):
            (result,) = decide(rows)
            others += compare(result, classes.names, {name: output[name][number] for name in names[:3]})
    yield Check("cosine of embeddings", min(cosines), "at least", LEAST_COSINE[precision])
    yield Check("difference of scores", float(max(differences)), "at most", MOST_DIFFERENCE[precision])
    yield Check("other labels" if several else "other answers", others, "at most", 0)


def _other_answer(result: ImageResult, names: Sequence[str], output: Mapping[str, Any]) -> bool:
    """Return whether a file answers one image differently from the package, ties aside."""
    scores, answer = output["scores"], int(output["answer"])
    expected = names.index(result.predictions[0].label) if result.predictions else -1
    return answer != expected and not (min(answer, expected) >= 0 and abs(scores[answer] - scores[expected]) < 1e-6)


def _other_labels(result: ImageResult, names: Sequence[str], output: Mapping[str, Any]) -> bool:
    columns = np.flatnonzero(output["labels"]).tolist()
    stated = {(names[column], CROPS[output["crops"][column]]) for column in columns}
    return {(one.label, one.box) for one in result.labels or ()} != stated
