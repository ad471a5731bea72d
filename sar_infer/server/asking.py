"""Classify images by banks: one way for the server's own protocol and for those of other services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decide, by_bank, can_call_unknown
from sar_infer.results import PLAIN, DecisionOptions, ImageResult
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.line import ImageInput, Outcome
from sar_infer.server.service import Service
from sar_infer.text.names import Phrases


class Answers(NamedTuple):
    """Results of a call.

    Attributes:
        outcomes: Of each image; with several banks its result is in ``banks``.
        classes: The classes of each bank, and the digest of the bank's content.
        engine: The engine that answered, which may be closed by now.
    """

    outcomes: list[Outcome[ImageResult]]
    classes: list[tuple[ClassSet, str]]
    engine: Engine


async def ask(
    service: Service,
    images: Sequence[ImageInput],
    banks: Sequence[str | None] = (None,),
    phrases: Phrases | None = None,
    only: bool | None = None,
    top_k: int = 5,
    options: DecisionOptions | None = PLAIN,
) -> Answers:
    """Classify images by one bank or by several; a bad image fails by itself.

    Args:
        service: Its engine answers.
        images: Encoded bytes, or the reason why there is no image.
        banks: Names of banks of ``--banks``; None is that of ``--bank``.
        phrases: Phrases by class name, of the call.
        only: Choose only from these classes; None leaves it to the bank.
        top_k: Number of classes for each image, at most.
        options: Further output. None detects unknown images if the classes have a threshold.

    Raises:
        InputError: The classes do not have what ``options`` ask for, or there is none to choose from.
        Problem: ``overloaded``, or as of ``Banks.open``, ``Names.class_set`` and ``Line.each``.
    """
    with service.lease() as engine, service.images.hold(len(images)):
        classes = [await engine.class_set(bank, phrases or {}, only) for bank in await engine.banks.open(*banks)]

        def decide(one: ClassSet) -> Decide:
            chosen = DecisionOptions(unknown=can_call_unknown(one)) if options is None else options
            return engine.decide(one, top_k, chosen)

        sets = [one for one, _ in classes]
        finish = decide(sets[0]) if len(sets) == 1 else by_bank(dict(zip(map(str, banks), sets, strict=True)), decide)
        several = options is not None and options.several
        count = sum(len(one.names) for one in sets)
        outcomes = await engine.line.each(images, finish, count, several=several)
    for outcome in outcomes:
        if outcome.value is not None:
            for result in (outcome.value.banks or {"": outcome.value}).values():
                _observe(result, service.metrics)
    return Answers(outcomes, classes, engine)


def _observe(result: ImageResult, metrics: Metrics) -> None:
    if result.predictions:
        metrics.top_score.observe(result.predictions[0].score)
    if result.unknown is not None and result.unknown_threshold is not None:
        metrics.judged.inc()
        metrics.unknown.inc(result.unknown > result.unknown_threshold)
