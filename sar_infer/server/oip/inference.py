"""The model as Open Inference Protocol v2 sees it: its inputs, its outputs, and how a call is answered.

Inputs: IMAGE or pixels, and CLASSES if the call has class names of its own. Outputs: SCORES and LABELS (N, C) whose
columns are the classes of the call, the bank's first, or (N, top_k) with the best first in each row; EMBEDDING (N, D).
Background classes take their share of the scores but have no column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.class_names import cleaned
from sar_infer.server.http.body import check_count
from sar_infer.server.http.request import chooses_only, decoded
from sar_infer.server.model.engine import Engine, Finish, ImageInput
from sar_infer.server.oip.protocol import InferInput, InferOutput, InferRequest, Row, read_request
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service
from sar_infer.server.settings import Limits
from sar_infer.text.names import Phrases

INPUTS = {"IMAGE": "BYTES", "pixels": "FP32", "CLASSES": "BYTES"}
OUTPUTS = {"SCORES": "FP32", "LABELS": "BYTES", "EMBEDDING": "FP32"}
"""Datatypes by name."""
_MOST_SCORES = 2**18


async def infer(
    service: Service, engine: Engine, bank: ClassBank, body: bytes, header_length: str | None
) -> tuple[InferRequest, list[Sequence[Row]]]:
    """Return a call, and a row of each of its outputs for each image.

    Args:
        service: Admits the images.
        engine: Leased from it.
        bank: The bank that was served when the engine was leased; a reload may have replaced both since.
        body: JSON, perhaps followed by binary data.
        header_length: As in ``read_request``.

    Raises:
        Problem: the call is malformed or wrong, an image is bad, or the server is too busy.
    """
    size, limits = engine.bundle.manifest.preprocess.size, service.settings.limits
    call = await service.in_turn(len(body), lambda: _read_call(body, header_length, size, limits))
    request, source, images, phrases = call
    outputs, top_k = request.outputs, request.parameters.top_k
    only = chooses_only(request.parameters.mode, bool(phrases))
    classes: ClassSet | None = None
    with service.admission.images.hold(len(images)):
        if any(output.name != "EMBEDDING" for output in outputs):
            classes = await engine.names.class_set(phrases, only, bank)
            _check_size(len(images), len(classes.names), outputs, top_k)
            engine.decide(classes)  # refuses a call with background classes alone
        labels = [f"{source.name}[{i}]" for i in range(len(images))]
        finish = _finisher(engine, classes, outputs, top_k)
        rows = await engine.all_of(images, finish, labels, 0 if classes is None else len(classes.names))
    for (embedding, best, _), label in zip(rows, labels, strict=True):
        if not np.isfinite(embedding).all():
            raise source.wrong(f"{label} gives no finite embedding, its values are too large")
        if best is not None:
            service.metrics.top_score.observe(best)
    return request, [*zip(*(values for *_, values in rows), strict=True)]


def _finisher(
    engine: Engine, classes: ClassSet | None, outputs: Sequence[InferOutput], top_k: int | None
) -> Finish[tuple[Floats, float | None, Sequence[Row]]]:
    """Return the function that makes of images (N, D) their unit vectors, best scores, and rows of each output."""
    if classes is None:  # only the embedding is wanted
        return lambda rows: [(row, None, [row]) for row in rows]
    classifier, hidden = engine.classifier, classes.background
    answers = slice(None) if hidden is None else ~hidden
    names = tuple(name.encode() for i, name in enumerate(classes.names) if hidden is None or not hidden[i])

    def finish(rows: Floats) -> Iterator[tuple[Floats, float, Sequence[Row]]]:
        logits = classifier.logits(rows, classes)
        scores = classifier.scores(logits, classes)[:, answers]
        logits = logits[:, answers]
        values = zip(*(_values(output, rows, logits, scores, names, top_k) for output in outputs), strict=True)
        return zip(rows, scores.max(axis=1).tolist(), values, strict=True)

    return finish


def _values(
    output: InferOutput, rows: Floats, logits: Floats, scores: Floats, names: Sequence[bytes], top_k: int | None
) -> Sequence[Row]:
    """Return one output of N images.

    Args:
        output: As requested.
        rows: (N, D) unit vectors.
        logits: (N, C).
        scores: (N, C).
        names: C class names.
        top_k: Number of classes to return, the best first; None returns all in order.
    """
    if output.name == "EMBEDDING":
        return rows
    count = output.parameters.classification or top_k
    if count is None:
        return scores if output.name == "SCORES" else [names] * len(rows)
    best = ranking.top_k(logits, count)
    if output.parameters.classification is not None:
        pairs = zip(scores, best, strict=True)
        return [[b"%.9g:%d:%b" % (row[column], column, names[column]) for column in columns] for row, columns in pairs]
    if output.name == "SCORES":
        return np.take_along_axis(scores, best, axis=1)
    return [[names[column] for column in columns] for columns in best]


def _read_call(
    body: bytes, header_length: str | None, size: int, limits: Limits
) -> tuple[InferRequest, InferInput, Sequence[ImageInput], Phrases]:
    """Return a checked call, its input with images, these images, and its class names; ``size`` is their side."""
    request = read_request(body, header_length, limits)
    request.outputs = request.outputs or [InferOutput(name="SCORES"), InferOutput(name="LABELS")]
    for output in request.outputs:
        where = f"output {output.name!r:.80}"
        if output.name not in OUTPUTS:
            raise Problem("invalid-request", f"{where}: expected {', '.join(OUTPUTS)}")
        if output.parameters.shared_memory_region is not None:
            raise Problem("invalid-request", f"{where}: shared memory is not supported")
        if output.parameters.classification is not None and output.name != "SCORES":
            raise Problem("invalid-request", f"{where}: classification is for SCORES only")
    for tensor in request.inputs:
        if tensor.name not in INPUTS:
            raise tensor.wrong(f"expected {', '.join(INPUTS)}")
        if tensor.datatype != INPUTS[tensor.name]:
            raise tensor.wrong(f"expected datatype {INPUTS[tensor.name]}, got {tensor.datatype!r:.40}")
    tensors = {tensor.name: tensor for tensor in request.inputs}
    classes = tensors.pop("CLASSES", None)
    if len(tensors) != 1:
        raise Problem("invalid-request", "inputs: expected either IMAGE or pixels")
    (source,) = tensors.values()
    return request, source, _images(source, size, limits), {} if classes is None else _phrases(classes, limits)


def _images(tensor: InferInput, size: int, limits: Limits) -> Sequence[ImageInput]:
    count, *rest = tensor.shape or [0]
    if count < 1 or rest not in ([[], [1]] if tensor.name == "IMAGE" else [[3, size, size]]):
        expected = "[N] or [N, 1]" if tensor.name == "IMAGE" else f"[N, 3, {size}, {size}]"
        raise tensor.wrong(f"expected shape {expected}, got {tensor.shape!s:.80}")
    check_count(count, limits)
    if tensor.name == "pixels":
        return list(tensor.floats())
    return [decoded(item) if isinstance(item, str) else item for item in tensor.elements()]


def _phrases(tensor: InferInput, limits: Limits) -> Phrases:
    if len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise tensor.wrong(f"expected shape [C], got {tensor.shape!s:.80}")
    if tensor.shape[0] > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names, got {tensor.shape[0]}")
    try:
        return cleaned([item if isinstance(item, str) else item.decode() for item in tensor.elements()], limits)
    except UnicodeDecodeError:
        raise tensor.wrong("expected UTF-8") from None


def _check_size(images: int, classes: int, outputs: Sequence[InferOutput], top_k: int | None) -> None:
    whole = top_k is None and any(o.name != "EMBEDDING" and o.parameters.classification is None for o in outputs)
    if whole and images * classes > _MOST_SCORES:
        raise Problem("invalid-request", f"{images} × {classes} scores are too many for one answer; ask for top_k")
