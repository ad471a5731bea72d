"""Answers for photos that show several classes, one or none, compared with their labels: figures, text and a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.decision import Decision
from sar_infer.errors import InputError, raised_as
from sar_infer.evaluation.evaluation import class_of
from sar_infer.evaluation.html import write_page
from sar_infer.evaluation.reading import Embedded, LeftOut, answered
from sar_infer.evaluation.report import table
from sar_infer.images.inputs import folders
from sar_infer.images.load import ImageSource
from sar_infer.images.thumbnail import picture_of, short_name
from sar_infer.measures import Share, average_precision
from sar_infer.results import Label
from sar_infer.storage.strict_json import json_values

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
    answers: tuple[SeveralAnswer, ...] = field(default=(), repr=False)
    left_out: tuple[LeftOut, ...] = ()


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
    task = f"{path}: expected a list with path and labels (a{_BETWEEN}b)"
    with raised_as(InputError, task, (OSError, ValueError, TypeError, AttributeError, csv.Error)):
        text = path.read_text("utf-8-sig")
        for row in json.loads(text) if path.suffix.lower() == ".json" else csv.DictReader(text.splitlines()):
            if missing := {"path", "labels"} - row.keys():
                raise InputError(f"{task}: no column {max(missing)!r}, but {[*row]!r:.200}")
            if None in row:
                raise InputError(
                    f"{path}: {row['path']!r:.200} has labels in columns of their own; put {_BETWEEN} between"
                )
            if not (photo := path.parent / row["path"]).is_file():
                raise InputError(f"{path}: {row['path']!r:.200} is no file; paths are relative to the list")
            names = row["labels"].split(_BETWEEN) if isinstance(row["labels"], str) else row["labels"] or ()
            yield str(photo), [name for label in names if (name := label.strip())]


def evaluate_several(
    labels: Mapping[str, Sequence[str]],
    classes: ClassSet,
    bank: ClassBank,
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> SeveralEvaluation:
    """Evaluate answers for photos; photos of the same pixels count once, with the labels of all.

    Args:
        labels: Labels by photo.
        classes: The classes to choose from.
        bank: The bank, whose aliases count.
        embed: As `answered` takes it, with the crops (5, D) of photos.
        decide: Makes results of the rows of crops, of all classes.
        learned: As `answered` takes it.
        watch: As `answered` takes it.

    Raises:
        InputError: No photo shows one of the classes.
    """
    columns = {label: class_of(label, classes, bank) for of in labels.values() for label in of}
    shown_by = {image: {name for label in of if (name := columns[label])} for image, of in labels.items()}
    if not any(shown_by.values()):
        raise InputError("no photo shows one of the classes to choose from; name folders or labels like classes")
    pairs = [(_BETWEEN.join(of), image) for image, of in labels.items()]
    read, left_out = answered(pairs, embed, decide, learned, watch)
    of_photos = [set[str]().union(*(shown_by[name] for _, name in one.photos)) for one in read]
    if not (names := sorted(set[str]().union(*of_photos))):
        raise InputError(
            "each photo of the classes was left out: none can be read, or the classes have learned from them"
        )
    answers = [
        SeveralAnswer(one.result.image, tuple(sorted(shown)), one.result.labels or ())
        for one, shown in zip(read, of_photos, strict=True)
    ]
    by_name = [{one.label: one.score for one in photo.result.predictions} for photo in read]
    scores = np.array([[of_photo[name] for name in names] for of_photo in by_name])
    other_labels = tuple(sorted(name for name, column in columns.items() if column is None))
    return _measured(len(classes.names), names, answers, scores, other_labels, left_out)


def _measured(
    classes: int,
    names: Sequence[str],
    answers: Sequence[SeveralAnswer],
    scores: npt.NDArray[np.floating],
    other_labels: tuple[str, ...],
    left_out: Sequence[LeftOut],
) -> SeveralEvaluation:
    """Return the figures of N answers and the scores (N, L) of the L classes that photos show."""
    shown = [{*answer.labels} for answer in answers]
    said = [{one.label for one in answer.answers} for answer in answers]
    shows, yes = (np.array([[name in of for name in names] for of in every]) for every in (shown, said))
    per_class = [
        SeveralClass(
            name,
            Share.of_flags(shows[yes[:, column], column]),
            Share.of_flags(yes[shows[:, column], column]),
            average_precision(scores[:, column], shows[:, column]),
        )
        for column, name in enumerate(names)
    ]
    is_empty = np.array([not of_photo for of_photo in said])
    return SeveralEvaluation(
        classes,
        Share.of_count(int((yes & shows).sum()), sum(map(len, said))) if any(said) else None,
        Share.of_flags(yes[shows]),
        float(np.mean([one.average_precision for one in per_class])),
        Share.of_flags(is_empty[~shows.any(axis=1)]),
        Share.of_flags(is_empty[shows.any(axis=1)]),
        tuple(sorted(per_class, key=lambda one: (one.average_precision, one.name))),
        other_labels,
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
        yield f"labels of no class      {', '.join(map(repr, evaluation.other_labels))}"
    yield ""
    yield from table(
        {"class": "", "average precision": ".1%", "precision": ".1%", "recall": ".1%", "photos": ","},
        [
            (one.name, one.average_precision, one.precision, one.recall, one.recall.of if one.recall else 0)
            for one in evaluation.per_class
        ],
    )


def write_several(path: Path, evaluation: SeveralEvaluation, title: str, facts: Mapping[str, str]) -> None:
    """Write the figures, and photos with a mistake, as one HTML file.

    Raises:
        WriteError: The file cannot be written.
    """
    mistakes = [one for one in evaluation.answers if {*one.labels} != {answer.label for answer in one.answers}]
    shown = [
        json_values(one) | {"image": short_name(one.image), "picture": picture_of(one.image, _SIDE)}
        for one in mistakes[:_MOST_SHOWN]
    ]
    content = figures(evaluation) | {"facts": dict(facts), "mistakes": len(mistakes), "shown": shown}
    write_page(path, "several", title, content)


def figures(evaluation: SeveralEvaluation) -> dict[str, Any]:
    """Return all but the photos as JSON values."""
    content = {**json_values(evaluation), "photos": len(evaluation.answers)}
    del content["answers"], content["left_out"]
    return content
