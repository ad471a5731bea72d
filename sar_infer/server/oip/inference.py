"""The model as Open Inference Protocol v2 sees it: its inputs, its outputs, and how a call is answered.

Inputs: IMAGE or pixels, and CLASSES if the call has class names of its own. Outputs: SCORES and LABELS (N, C) whose
columns are the classes of the call, the bank's first, or (N, top_k) with the best first in each row; EMBEDDING (N, D).
Background classes take their share of the scores but have no column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import bundle_name, default_bundle
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.class_names import cleaned
from sar_infer.server.http.body import check_count
from sar_infer.server.http.request import chooses_only, decoded
from sar_infer.server.model.engine import Engine, Finish, ImageInput
from sar_infer.server.oip.protocol import InferOutput, InferRequest, Input, Output, read_request
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits
from sar_infer.text.names import Phrases

ALIAS = "sar-clip"
"""A name that the model always has, in addition to that of its bundle's folder."""
_INPUTS = ("IMAGE", "pixels", "CLASSES")
_OUTPUTS = ("SCORES", "LABELS", "EMBEDDING")
_DATATYPES = dict(zip(_INPUTS + _OUTPUTS, ("BYTES", "FP32", "BYTES", "FP32", "BYTES", "FP32"), strict=True))
_VERSION_LENGTH = 12
_MOST_SCORES = 2**18


def check_model(service: Service, engine: Engine, model: str, version: str | None = None) -> str:
    """Return the version of the model that answers: the first digits of its bundle's digest.

    Raises:
        Problem: the call is for another model or version.
    """
    model_name = bundle_name(service.settings.bundle or default_bundle())
    current = engine.bundle.manifest.digest[:_VERSION_LENGTH]
    if model not in (model_name, ALIAS):
        raise Problem("not-found", f"no model {model!r:.80}; expected {model_name} or {ALIAS}")
    if version not in (None, current):
        raise Problem("not-found", f"no version {version!r:.80} of {model}; expected {current}")
    return current


def describe(engine: Engine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return name, datatype and shape of each input and each output; -1 stands for any size."""
    manifest = engine.bundle.manifest
    size = manifest.preprocess.size
    shapes = {"IMAGE": [-1], "pixels": [-1, 3, size, size], "CLASSES": [-1]}
    shapes |= {"SCORES": [-1, -1], "LABELS": [-1, -1], "EMBEDDING": [-1, manifest.embed_dim]}
    tensors = [{"name": name, "datatype": _DATATYPES[name], "shape": shape} for name, shape in shapes.items()]
    return tensors[: len(_INPUTS)], tensors[len(_INPUTS) :]


@dataclass(frozen=True)
class InferenceCall:
    """A checked call: the request, the outputs it wants, the input with its images, and its class names."""

    request: InferRequest
    outputs: Sequence[InferOutput]
    source: Input
    images: Sequence[ImageInput]
    classes: Phrases


def read_call(body: bytes, header_length: str | None, size: int, limits: Limits) -> InferenceCall:
    """Read and check a call.

    Args:
        body: JSON, perhaps followed by binary data.
        header_length: As in ``read_request``.
        size: Side of the encoder's images.
        limits: Limits of a call.

    Raises:
        Problem: malformed, or an input or output is wrong.
    """
    request, tensors = read_request(body, header_length, limits)
    outputs = _checked_outputs(request)
    source, images = _images(tensors, size, limits)
    return InferenceCall(request, outputs, source, images, _classes(tensors.get("CLASSES"), limits))


async def infer(service: Service, engine: Engine, bank: ClassBank, call: InferenceCall) -> list[Output]:
    """Return the outputs of a call.

    Args:
        service: Admits the images.
        engine: Leased from it.
        bank: The bank that was served when the engine was leased; a reload may have replaced both since.
        call: The call.

    Raises:
        Problem: a parameter is wrong, an image is bad, or the server is too busy.
    """
    outputs, source, options = call.outputs, call.source, call.request.parameters
    only, top_k = chooses_only(options.mode, bool(call.classes)), options.top_k
    classes: ClassSet | None = None
    with service.admission.images.hold(len(call.images)):
        if any(output.name != "EMBEDDING" for output in outputs):
            classes = await engine.names.class_set(call.classes, only, bank)
            _check_size(len(call.images), len(classes.names), outputs, top_k)
            engine.decide(classes)  # refuses a call with background classes alone
        labels = [f"{source.name}[{i}]" for i in range(len(call.images))]
        finish = _finisher(engine, classes, outputs, top_k)
        rows = await engine.all_of(call.images, finish, labels, 0 if classes is None else len(classes.names))
    for row, label in zip(rows, labels, strict=True):
        if not np.isfinite(row.embedding).all():
            raise source.wrong(f"{label} gives no finite embedding, its values are too large")
        if row.best is not None:
            service.metrics.top_score.observe(row.best)
    columns = zip(outputs, zip(*(row.values for row in rows), strict=True), strict=True)
    return [_output(output, values, options.binary_data_output) for output, values in columns]


def _output(output: InferOutput, values: Sequence[Any], binary: bool) -> Output:
    """Return an output of the rows of all images; it says how it is sent, or the call does."""
    chosen = output.parameters.binary_data
    tensor = np.stack(values) if isinstance(values[0], np.ndarray) else values
    return Output(output.name, tensor, binary if chosen is None else chosen)


@dataclass(frozen=True)
class _Row:
    """One image: its unit vector (D,), its best score, and its row of each output."""

    embedding: Floats
    best: float | None
    values: Sequence[Floats | Sequence[bytes]]


def _finisher(
    engine: Engine, classes: ClassSet | None, outputs: Sequence[InferOutput], top_k: int | None
) -> Finish[_Row]:
    """Return the function that makes the outputs of images (N, D)."""
    if classes is None:  # only the embedding is wanted
        return lambda rows: [_Row(row, None, [row for _ in outputs]) for row in rows]
    classifier, hidden = engine.classifier, classes.background
    answers = slice(None) if hidden is None else ~hidden
    names = tuple(name.encode() for i, name in enumerate(classes.names) if hidden is None or not hidden[i])

    def finish(rows: Floats) -> Iterator[_Row]:
        logits = classifier.logits(rows, classes)
        scores = classifier.scores(logits, classes)[:, answers]
        return map(outputs_of, rows, logits[:, answers], scores)

    def outputs_of(row: Floats, logits: Floats, scores: Floats) -> _Row:
        shown = slice(None) if top_k is None else ranking.top_k(logits[np.newaxis], top_k)[0]
        values: list[Floats | Sequence[bytes]] = []
        for output in outputs:
            if (count := output.parameters.classification) is not None:
                best = ranking.top_k(logits[np.newaxis], count)[0]
                values.append([b"%.9g:%d:%b" % (scores[column], column, names[column]) for column in best])
            elif output.name == "LABELS":
                values.append(names if isinstance(shown, slice) else [names[column] for column in shown])
            else:
                values.append(scores[shown] if output.name == "SCORES" else row)
        return _Row(row, float(scores.max()), values)

    return finish


def _checked_outputs(request: InferRequest) -> Sequence[InferOutput]:
    if not request.outputs:
        return [InferOutput(name="SCORES"), InferOutput(name="LABELS")]
    for i, output in enumerate(request.outputs):
        where = f"output {output.name!r:.80}"
        if output.name not in _OUTPUTS:
            raise Problem("invalid-request", f"{where}: expected {', '.join(_OUTPUTS)}")
        if any(output.name == other.name for other in request.outputs[:i]):
            raise Problem("invalid-request", f"{where} is given twice")
        if output.parameters.shared_memory_region is not None:
            raise Problem("invalid-request", f"{where}: shared memory is not supported")
        if output.parameters.classification is not None and output.name != "SCORES":
            raise Problem("invalid-request", f"{where}: classification is for SCORES only")
    return request.outputs


def _images(tensors: Mapping[str, Input], size: int, limits: Limits) -> tuple[Input, Sequence[ImageInput]]:
    for tensor in tensors.values():
        if tensor.name not in _INPUTS:
            raise tensor.wrong(f"expected {', '.join(_INPUTS)}")
        if tensor.datatype != _DATATYPES[tensor.name]:
            raise tensor.wrong(f"expected datatype {_DATATYPES[tensor.name]}, got {tensor.datatype!r:.40}")
    image_tensors = [tensors[name] for name in ("IMAGE", "pixels") if name in tensors]
    if len(image_tensors) != 1:
        raise Problem("invalid-request", "inputs: expected either IMAGE or pixels")
    (tensor,) = image_tensors
    shape = tensor.shape
    if not shape or shape[0] < 1 or shape[1:] not in (((), (1,)) if tensor.name == "IMAGE" else ((3, size, size),)):
        expected = "[N] or [N, 1]" if tensor.name == "IMAGE" else f"[N, 3, {size}, {size}]"
        raise tensor.wrong(f"expected shape {expected}, got {list(shape)!s:.80}")
    check_count(shape[0], limits)
    if tensor.name == "pixels":
        return tensor, list(tensor.floats())
    return tensor, [decoded(item) if isinstance(item, str) else item for item in tensor.elements()]


def _classes(tensor: Input | None, limits: Limits) -> Phrases:
    if tensor is None:
        return {}
    if len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise tensor.wrong(f"expected shape [C], got {list(tensor.shape)!s:.80}")
    if tensor.count > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names, got {tensor.count}")
    try:
        return cleaned([item if isinstance(item, str) else item.decode() for item in tensor.elements()], limits)
    except UnicodeDecodeError:
        raise tensor.wrong("expected UTF-8") from None


def _check_size(images: int, classes: int, outputs: Sequence[InferOutput], top_k: int | None) -> None:
    whole = top_k is None and any(o.name != "EMBEDDING" and o.parameters.classification is None for o in outputs)
    if whole and images * classes > _MOST_SCORES:
        raise Problem("invalid-request", f"{images} × {classes} scores are too many for one answer; ask for top_k")
