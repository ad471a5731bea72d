"""From labelled photos to an answer for each, and what is known of the classes that mistakes are about."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.edits import Embed
from sar_infer.bank_advice import Linter
from sar_infer.bundle.bundle import Bundle
from sar_infer.classifiers.trained_statistics import enough
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision
from sar_infer.errors import ImageError
from sar_infer.evaluation.advice import Facts
from sar_infer.evaluation.evaluation import RANKED, Answer, Evaluation, LeftOut
from sar_infer.images.load import ImageSource
from sar_infer.results import ImageResult
from sar_infer.text.names import name_key

Embedded = Iterator[tuple[str, bytes, Floats | ImageError]]
"""Name, digest of the pixels, and unit row (D,) of each photo, or the error that it gave."""
_TOGETHER = 64
_ALIKE = 0.85
_MOST_CHECKED = 24
"""Classes whose names are looked at: those with the most mistakes."""


def answers_to(
    photos: Mapping[str, Iterable[ImageSource]],
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    columns: Mapping[str, str | None],
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> tuple[list[Answer], list[LeftOut]]:
    """Return the answer for each photo, and the photos that are left out.

    Args:
        photos: Photos by label.
        embed: Embeds photos one after another.
        decide: Makes results of rows, of five classes or more.
        columns: The class of each label; None for one that is no class.
        learned: Digests of photos that the classes have learned from.
        watch: Called with the number of photos done since the last call.
    """
    pairs = [(label, source) for label, sources in photos.items() for source in sources]
    digests, learned_digests = dict[bytes, str](), frozenset(learned)
    answers: list[Answer] = []
    left_out: list[LeftOut] = []
    pending: list[tuple[str, str, Floats]] = []

    def finish() -> None:
        if pending:
            labels, names, rows = zip(*pending, strict=True)
            results = zip(labels, decide(np.stack(rows), names), strict=True)
            answers.extend(_answer(result, label, columns[label]) for label, result in results)
            pending.clear()

    for (label, _), (name, digest, row) in zip(pairs, embed([source for _, source in pairs]), strict=True):
        if isinstance(row, ImageError):
            left_out.append(LeftOut(name, label, "unreadable", str(row)))
        elif digest in learned_digests:
            left_out.append(LeftOut(name, label, "learned", "the classes have learned from it"))
        elif digest in digests:
            left_out.append(LeftOut(name, label, "repeated", f"the same pixels as {digests[digest]}"))
        else:
            digests[digest] = name
            pending.append((label, name, row))
        if len(pending) == _TOGETHER:
            finish()
        watch(1)
    finish()
    return answers, left_out


def _answer(result: ImageResult, label: str, name: str | None) -> Answer:
    best = result.predictions[0]
    rank = next((number for number, p in enumerate(result.predictions[:RANKED], 1) if p.label == name), None)
    return Answer(
        result.image,
        label if name is None else name,
        best.label,
        best.score,
        rank,
        None if rank is None else result.predictions[rank - 1].score,
        result.unknown,
        stranger=name is None,
    )


def class_of(label: str, classes: ClassSet, bank: ClassBank) -> str | None:
    """Return the class that a label names, by name or alias; None if it is none to choose from, or background.

    Args:
        label: The label.
        classes: The classes to choose from.
        bank: The bank, whose aliases count.
    """
    column = classes.lookup.get(label)
    if column is None and (position := bank.lookup.get(label)) is not None:
        column = classes.lookup.name(bank.names[position])
    if column is None or (classes.background is not None and classes.background[column]):
        return None
    return classes.names[column]


def nothing_left(labels: Sequence[str], answers: Sequence[Answer], left_out: Sequence[LeftOut]) -> str:
    """Return why there is nothing to evaluate, and what to do.

    Args:
        labels: The labels of all photos.
        answers: The answers for those that were evaluated, all of them strangers.
        left_out: The others.
    """
    if answers:
        shown = ", ".join(map(repr, labels[:3])) + ", …" * (len(labels) > 3)
        return f"none of the labels ({shown}) is a class to choose from; name folders like classes, or add these"
    kinds = {item.kind for item in left_out}
    if "learned" in kinds:
        return "no photo is left: the classes have learned from all of them; give others"
    if left_out:
        return f"no photo can be read: {left_out[0].image}: {left_out[0].reason}"
    return "no photo to evaluate"


def facts_of(
    evaluation: Evaluation,
    bundle: Bundle,
    bank: ClassBank,
    classes: ClassSet,
    embed: Embed,
    examples: Mapping[str, PhotoSet],
    command: Callable[..., str] | None,
) -> Facts:
    """Return what is known of the classes that mistakes are about.

    Args:
        evaluation: What was measured.
        bundle: The bundle that answers.
        bank: The bank of the classes.
        classes: The classes to choose from.
        embed: Embeds names.
        examples: Further photos of classes.
        command: See ``Facts``.
    """
    involved = dict.fromkeys(name for pair in evaluation.confused for name in (pair.label, pair.answer))
    names = [name for name in involved if bank.lookup.name(name) is not None][:_MOST_CHECKED]
    photos = {name: 0 if bank.lookup.name(name) is None else len(bank.photos_of(name)) for name in involved}
    for label, examples_of in examples.items():
        position = bank.lookup.get(label)
        name = label if position is None else bank.names[position]
        photos[name] = photos.get(name, 0) + len(examples_of)
    named = {name: bank.entry(name).texts for name in names if not bank.photos_of(name).photos_only}
    findings = Linter(bundle, bank, within=True).check(named, embed) if named else []
    strangers = evaluation.unknowns.stranger_classes
    alike = {label: [name for name in classes.lookup.near(label, 1) if _alike(name, label)] for label in strangers}
    background = [label for label in strangers if bank.lookup.get(label) is not None]
    fittable = bank.fitted is None and not examples and enough(bank.photos)
    return Facts(photos, findings, alike, background, fittable, command)


def _alike(name: str, label: str) -> bool:
    """Return True if two spellings may well mean the same class."""
    return difflib.SequenceMatcher(None, name_key(name), name_key(label)).ratio() >= _ALIKE
