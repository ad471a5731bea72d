"""Answers for photos that show several classes, one or none, compared with their labels: figures, text and a page."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer.classify.decision import Decision
from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.evaluation.evaluation import LeftOut
from sar_infer.evaluation.html import write_page
from sar_infer.evaluation.reading import Embedded
from sar_infer.images.inputs import folders
from sar_infer.images.load import ImageSource
from sar_infer.images.thumbnail import thumbnail
from sar_infer.measures import Share, average_precision
from sar_infer.results import ImageResult, Label

_BETWEEN = "|"
_MOST_SHOWN, _SIDE = 48, 320
"""Photos with a mistake on the page, and pixels of their longer side."""


@dataclass(frozen=True)
class SeveralAnswer:
    """A photo: the classes that it shows, and those that it is said to show."""

    image: str
    labels: tuple[str, ...]
    answers: tuple[Label, ...]


@dataclass(frozen=True)
class SeveralClass:
    """The photos of one class.

    Attributes:
        name: The class.
        precision: Share of the photos said to show it that do; None if there are none.
        recall: Share of the photos that show it that are said to.
        average_precision: Area under precision over recall, 0..1, photos in the order of its probability.
    """

    name: str
    precision: Share | None
    recall: Share | None
    average_precision: float


@dataclass(frozen=True)
class SeveralEvaluation:
    """Answers for photos of several classes, with their labels.

    Attributes:
        classes: Number of classes to choose from.
        precision: Share of the classes in all answers that are labels; None if all answers are empty.
        recall: Share of all labels that are in the answers.
        mean_average_precision: Mean over the classes that are labels, 0..1.
        empty: Share of the photos without a label whose answer is empty; None if there are none.
        missed: Share of the photos with a label whose answer is empty.
        per_class: The classes that are labels, the worst first.
        other_labels: Labels that are no class to choose from, and do not count.
        answers: The answer for each photo.
        left_out: Photos that are not evaluated.
    """

    classes: int
    precision: Share | None
    recall: Share | None
    mean_average_precision: float
    empty: Share | None
    missed: Share | None
    per_class: tuple[SeveralClass, ...]
    other_labels: tuple[str, ...] = ()
    answers: tuple[SeveralAnswer, ...] = dataclasses.field(default=(), repr=False)
    left_out: tuple[LeftOut, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return dataclasses.asdict(self) | {"answers": [_plain(answer) for answer in self.answers]}


def labels_of(roots: Iterable[str], lookup: Callable[[str], object]) -> dict[str, list[str]]:
    """Return labels by photo, from folders with one folder for each class, or lists (.csv, .json) of path and labels.

    Args:
        roots: Folders and lists. Paths in a list are relative to it, and its labels are separated by ``|``; none is a
            photo of no class.
        lookup: Returns None if no class has this name, as `folders` takes it.

    Raises:
        InputError: There is no such folder or list, it is not understood, or one of its photos is missing.
    """
    labels: dict[str, list[str]] = {}
    for root in roots:
        if Path(root).suffix.lower() in (".csv", ".json"):
            pairs = [*_listed(Path(root))]
        else:
            pairs = [(path, [name]) for name, paths in folders(root, lookup=lookup).items() for path in paths]
        for path, names in pairs:
            labels.setdefault(path, []).extend(names)
    return labels


def _listed(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        text = path.read_text("utf-8-sig")
        for row in json.loads(text) if path.suffix.lower() == ".json" else csv.DictReader(text.splitlines()):
            if not (photo := path.parent / row["path"]).is_file():
                raise InputError(f"{path}: {row['path']!r:.200} is no file; paths are relative to the list")
            names = row["labels"].split(_BETWEEN) if isinstance(row["labels"], str) else row["labels"] or ()
            yield str(photo), [name for label in names if (name := label.strip())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        why = f"no column {error}" if isinstance(error, KeyError) else reason_of(error)
        raise InputError(f"{path}: expected a list with path and labels (a{_BETWEEN}b): {why}") from None


def evaluate_several(
    labels: Mapping[str, Sequence[str]],
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    columns: Mapping[str, str | None],
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> tuple[list[tuple[str, set[str], ImageResult]], list[LeftOut]]:
    """Return image, classes and result of each photo, and the photos that are left out.

    Photos of the same pixels count once, with the labels of all.

    Args:
        labels: Labels by photo.
        embed: Embeds the crops (5, D) of photos one after another.
        decide: Makes results of the rows of crops, of all classes.
        columns: The class of each label; None for one that is no class.
        learned: Digests of photos that the classes have learned from.
        watch: Called with the number of photos done since the last call.
    """
    photos, known = dict[bytes, tuple[str, set[str], ImageResult]](), frozenset(learned)
    left_out: list[LeftOut] = []
    for names, (image, digest, rows) in zip(labels.values(), embed([*labels]), strict=True):
        shown = {name for label in names if (name := columns[label]) is not None}
        if isinstance(rows, ImageError):
            left_out.append(LeftOut(image, _BETWEEN.join(names), "unreadable", str(rows)))
        elif digest in known:
            left_out.append(LeftOut(image, _BETWEEN.join(names), "learned", "the classes have learned from it"))
        elif digest in photos:
            photos[digest][1].update(shown)
        else:
            photos[digest] = image, shown, next(decide(rows, [image]))
        watch(1)
    return [*photos.values()], left_out


def summarised(
    photos: Sequence[tuple[str, set[str], ImageResult]],
    classes: int,
    other_labels: Sequence[str],
    left_out: Sequence[LeftOut],
) -> SeveralEvaluation:
    """Return the figures of photos, as `evaluate_several` returns them.

    Raises:
        InputError: No photo shows one of the classes.
    """
    names = sorted({name for _, shown, _ in photos for name in shown})
    if not names:
        raise InputError("no photo shows one of the classes to choose from; name folders or labels like classes")
    answers = [SeveralAnswer(image, tuple(sorted(shown)), result.labels or ()) for image, shown, result in photos]
    by_name = [{one.label: one.score for one in result.predictions} for *_, result in photos]
    scores = np.array([[of_photo[name] for name in names] for of_photo in by_name])
    shows = np.array([[name in answer.labels for name in names] for answer in answers])
    said = [{one.label for one in answer.answers} for answer in answers]
    yes = np.array([[name in of_photo for name in names] for of_photo in said])
    per_class = [
        SeveralClass(
            name,
            Share.of_flags(shows[yes[:, column], column]),
            Share.of_flags(yes[shows[:, column], column]),
            average_precision(scores[:, column], shows[:, column]),
        )
        for column, name in enumerate(names)
    ]
    empty, missed = (
        Share.of_flags([not of_photo for of_photo, one in zip(said, answers, strict=True) if bool(one.labels) is some])
        for some in (False, True)
    )
    return SeveralEvaluation(
        classes,
        Share.of_count(int((yes & shows).sum()), sum(map(len, said))),
        Share.of_flags(yes[shows]),
        float(np.mean([one.average_precision for one in per_class])),
        empty,
        missed,
        tuple(sorted(per_class, key=lambda one: (one.average_precision, one.name))),
        tuple(other_labels),
        tuple(answers),
        tuple(left_out),
    )


def several_lines(evaluation: SeveralEvaluation) -> Iterator[str]:
    """Yield the figures as lines of text."""
    none = "no photo without a label" if evaluation.empty is None else f"{evaluation.empty} of photos without a label"
    labels = f"{len(evaluation.per_class):,} of {evaluation.classes:,} classes are labels"
    yield f"{len(evaluation.answers):,} photos; {labels}"
    yield f"precision               {evaluation.precision or 'no photo is said to show a class'}"
    yield f"recall                  {evaluation.recall}"
    yield f"mean average precision  {evaluation.mean_average_precision:.1%}"
    yield f"empty answers           {none}"
    yield f"                        {evaluation.missed} of the others"
    if evaluation.other_labels:
        yield f"labels of no class      {', '.join(evaluation.other_labels)}"
    width = max(5, *(len(one.name) for one in evaluation.per_class))
    yield from ("", f"{'class':<{width}}  average precision  precision  recall  photos")
    for one in evaluation.per_class:
        precision = "-" if one.precision is None else f"{one.precision.share:.1%}"
        recall, of = ("-", 0) if one.recall is None else (f"{one.recall.share:.1%}", one.recall.of)
        yield f"{one.name:<{width}}  {one.average_precision:17.1%}  {precision:>9}  {recall:>6}  {of:6,}"


def write_several(path: Path, evaluation: SeveralEvaluation, title: str, facts: Mapping[str, str]) -> None:
    """Write the figures, and photos with a mistake, as one HTML file.

    Raises:
        WriteError: The file cannot be written.
    """
    mistakes = [one for one in evaluation.answers if {*one.labels} != {answer.label for answer in one.answers}]
    content = dataclasses.asdict(dataclasses.replace(evaluation, answers=(), left_out=()))
    shown = {"title": title, "facts": dict(facts), "photos": len(evaluation.answers), "mistakes": len(mistakes)}
    shown["shown"] = [_photo(one) for one in mistakes[:_MOST_SHOWN]]
    write_page(path, "several", title, content | shown, style="evaluation")


def _photo(answer: SeveralAnswer) -> dict[str, Any]:
    try:
        picture = thumbnail(answer.image, _SIDE)
    except ImageError:
        picture = None
    return _plain(answer) | {"image": "/".join(Path(answer.image).parts[-2:]), "picture": picture}


def _plain(answer: SeveralAnswer) -> dict[str, Any]:
    return vars(answer) | {"answers": [one._asdict() for one in answer.answers]}
