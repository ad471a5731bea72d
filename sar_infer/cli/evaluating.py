"""Evaluation on labelled photos: what ``sar-bank evaluate`` and ``sar-classify --evaluate`` share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.cli.options import Refusal, emit, progress_bar, warn
from sar_infer.errors import one_line
from sar_infer.storage.strict_json import json_values

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation.evaluation import Evaluation
    from sar_infer.evaluation.labels import LabelCheck
    from sar_infer.evaluation.several import SeveralEvaluation
    from sar_infer.text.names import Classes

_TRAINING = "a bundle does not record which photos it was trained on; leave these out yourself"


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
    with progress_bar(sum(map(len, photos.values())), "Evaluating") as bar:
        return classifier.evaluate(photos, classes=classes, only=only, bank=bank, watch=bar.update)


def evaluated_several(
    classifier: Classifier, labels: Mapping[str, Sequence[str]], bank: ClassBank | None = None
) -> SeveralEvaluation:
    """Evaluate photos as `Classifier.evaluate_several` does, with a bar on a terminal."""
    with progress_bar(len(labels), "Evaluating") as bar:
        return classifier.evaluate_several(labels, bank=bank, watch=bar.update)


def of_training(evaluation: Evaluation, bundle: Bundle, bank: ClassBank) -> bool:
    """Return True if the bundle may have been trained on photos of a class of the bank that was evaluated."""
    from_bundle = bank.base is not None or bank is bundle.bank
    names = bundle.bank.names if from_bundle and bundle.manifest.method != "handcrafted" else ()
    return not {*names}.isdisjoint(one.name for one in evaluation.per_class)


def report(
    evaluation: Evaluation | SeveralEvaluation,
    form: str,
    page: Path | None,
    title: str,
    facts: Mapping[str, str],
    *,
    training: bool = False,
    strict: bool = False,
) -> int:
    """Print an evaluation, write its pages, and return 1 if a photo could not be read, else 0.

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
    from sar_infer.evaluation.page import write_evaluation
    from sar_infer.evaluation.several import SeveralEvaluation, several_lines, write_several
    from sar_infer.evaluation.text import left_out_lines, text_lines

    unreadable = [item for item in evaluation.left_out if item.kind == "unreadable"]
    for item in unreadable:
        warn(f"{item.image}: {item.reason}; left out")
    for line in (*left_out_lines(evaluation.left_out), *[_TRAINING] * training):
        click.echo(one_line(line), err=True)
    made = {**facts, "made by": f"sar-clip {__version__}"}
    content: dict[str, Any]
    if isinstance(evaluation, SeveralEvaluation):
        lines, content = several_lines(evaluation), json_values(evaluation)
        if page is not None:
            write_several(page, evaluation, title, made)
    else:
        _report_labels(evaluation.label_check, page, title, strict=strict)
        lines, content = text_lines(evaluation, shutil.get_terminal_size((100, 24)).columns), evaluation.to_json()
        if page is not None:
            write_evaluation(page, evaluation, title, made)
    content |= {"inputs": dict(facts), "page": page and str(page)}
    emit(form, lambda: content, [*lines, *([] if page is None else ["", f"page          {page}"])])
    return min(1, len(unreadable))


def _report_labels(check: LabelCheck | None, page: Path | None, title: str, *, strict: bool) -> None:
    from sar_infer.evaluation.labels import write_labels

    beside = page and page.with_name(f"{page.stem}-labels.html")
    if check is None or not (text := check.line(beside or "name one with --html PAGE")):
        return
    if beside is not None:
        write_labels(beside, check, f"{title}: photos in doubt")
    if strict:
        raise Refusal(f"--strict, and {text}")
    warn(text)
