"""Evaluation on labelled photos: what ``sar-bank evaluate`` and ``sar-classify --evaluate`` share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer import __version__
from sar_infer.cli.options import Refusal, emit, warn
from sar_infer.errors import one_line
from sar_infer.images.inputs import folders

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation import Evaluation, LeftOut
    from sar_infer.text.names import Classes

_HIDDEN_UP_TO = 64
_TRAINING = "a bundle does not record which photos it was trained on; leave these out yourself"


def labelled_photos(roots: Sequence[str], lookup: Callable[[str], object]) -> dict[str, list[str]]:
    """Return image paths by class from folders with one folder for each class.

    Args:
        roots: The folders.
        lookup: Returns None if no class has this name.

    Raises:
        InputError: See ``folders``.
    """
    paths_by_class: dict[str, list[str]] = {}
    for root in roots:
        for name, files in folders(root, warn, lookup).items():
            paths_by_class.setdefault(name, []).extend(files)
    return paths_by_class


def check_page(path: Path | None) -> None:
    """Raise Refusal if a page cannot be written there, before minutes are spent on photos."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise Refusal(f"{path}: expected a file to write, in a folder that exists; choose another --html")


def evaluated(
    classifier: Classifier,
    photos: Mapping[str, Sequence[str]],
    classes: Classes | None = None,
    only: bool | None = None,
    *,
    bank: ClassBank | None = None,
) -> Evaluation:
    """Evaluate photos as `Classifier.evaluate` does, with a bar on a terminal."""
    total = sum(map(len, photos.values()))
    hidden = total <= _HIDDEN_UP_TO or not sys.stderr.isatty()
    with click.progressbar(length=total, label="Evaluating", file=sys.stderr, hidden=hidden, show_pos=True) as bar:
        return classifier.evaluate(photos, classes=classes, only=only, bank=bank, watch=bar.update)


def of_training(evaluation: Evaluation, bundle: Bundle, bank: ClassBank) -> bool:
    """Return True if the bundle may have been trained on photos of a class of the bank that was evaluated."""
    from_bundle = bank.base is not None or bank is bundle.bank
    names = bundle.bank.names if from_bundle and bundle.manifest.method != "handcrafted" else ()
    return not {*names}.isdisjoint(one.name for one in evaluation.per_class)


def report(
    evaluation: Evaluation,
    form: str,
    page: Path | None,
    title: str,
    facts: Mapping[str, str],
    *,
    training: bool,
    strict: bool = False,
) -> int:
    """Print an evaluation, write its pages, and return how many photos could not be read.

    Args:
        evaluation: What was measured.
        form: ``text`` or ``json``.
        page: The HTML file; None writes none.
        title: What was evaluated.
        facts: What answered, and on which photos, by name.
        training: Photos of these classes may have been used in training.
        strict: Refuse to print it if a photo looks like another class.

    Raises:
        Refusal: There is such a photo, with ``strict``.
        WriteError: A page cannot be written.
    """
    from sar_infer.evaluation import text_lines, write_evaluation, write_labels

    unreadable = _report_left_out(evaluation.left_out, *[_TRAINING] * training)
    beside = None if page is None else page.with_name(f"{page.stem}-labels.html")
    check = evaluation.label_check
    if check is not None and (text := check.line(beside or "name one with --html PAGE")):
        if beside is not None:
            write_labels(beside, check, f"{title}: photos in doubt")
        if strict:
            raise Refusal(f"--strict, and {text}")
        warn(text)
    if page is not None:
        write_evaluation(page, evaluation, title, {**facts, "made by": f"sar-clip {__version__}"})
    width = shutil.get_terminal_size((100, 24)).columns
    content = {**evaluation.to_json(), "inputs": dict(facts), "page": None if page is None else str(page)}
    lines = [*text_lines(evaluation, width), *([] if page is None else ["", f"page          {page}"])]
    emit(form, lambda: content, lines)
    return unreadable


def report_several(
    classifier: Classifier,
    roots: Sequence[str],
    lookup: Callable[[str], object],
    form: str,
    page: Path | None,
    title: str,
    facts: Mapping[str, str],
) -> int:
    """Evaluate photos of several classes as `Classifier.evaluate_several` does, print it, and return 1 or 0.

    Args:
        classifier: It has the classes.
        roots: Folders and lists, as `sar_infer.evaluation.labels_of` takes them.
        lookup: As there.
        form: ``text`` or ``json``.
        page: The HTML file; None writes none.
        title: What was evaluated.
        facts: What answered, and on which photos, by name.

    Raises:
        InputError: A list is not understood, or no photo shows a class.
        WriteError: The page cannot be written.
    """
    from sar_infer.evaluation import labels_of, several_lines, write_several

    labels = labels_of(roots, lookup)
    hidden = len(labels) <= _HIDDEN_UP_TO or not sys.stderr.isatty()
    with click.progressbar(
        length=len(labels), label="Evaluating", file=sys.stderr, hidden=hidden, show_pos=True
    ) as bar:
        evaluation = classifier.evaluate_several(labels, watch=bar.update)
    unreadable = _report_left_out(evaluation.left_out)
    if page is not None:
        write_several(page, evaluation, title, {**facts, "made by": f"sar-clip {__version__}"})
    content = {**evaluation.to_json(), "inputs": dict(facts), "page": None if page is None else str(page)}
    emit(form, lambda: content, [*several_lines(evaluation), *([] if page is None else ["", f"page  {page}"])])
    return min(1, unreadable)


def _report_left_out(left_out: Sequence[LeftOut], *lines: str) -> int:
    """Print what was left out, and further lines, to stderr, and return how many photos could not be read."""
    from sar_infer.evaluation import left_out_lines

    unreadable = [item for item in left_out if item.kind == "unreadable"]
    for item in unreadable:
        warn(f"{item.image}: {item.reason}; left out")
    for line in (*left_out_lines(left_out), *lines):
        click.echo(one_line(line), err=True)
    return len(unreadable)
