"""Evaluation on labelled photos: what ``sar-bank evaluate`` and ``sar-classify --evaluate`` share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sar_infer import __version__
from sar_infer.cli.options import Refusal, emit, progress_bar, warn
from sar_infer.errors import one_line
from sar_infer.storage.strict_json import json_values

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.evaluation.evaluation import Evaluation
    from sar_infer.evaluation.labels import LabelCheck
    from sar_infer.evaluation.several import SeveralEvaluation

Result = TypeVar("Result")
_TRAINING = "a bundle does not record which photos it was trained on; leave these out yourself"


def check_page(path: Path | None) -> None:
    """Raise Refusal if a page cannot be written there, before minutes are spent on photos."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise Refusal(f"{path}: expected a file to write, in a folder that exists; choose another --html")


def watched(evaluate: Callable[..., Result], photos: object, count: int, **options: Any) -> Result:
    """Return what a method of `Classifier` makes of so many photos, with a bar on a terminal."""
    with progress_bar(count, "Evaluating") as bar:
        return evaluate(photos, watch=bar.update, **options)


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
    from sar_infer.evaluation.report import left_out_lines, text_lines, write_evaluation
    from sar_infer.evaluation.several import SeveralEvaluation, several_lines, write_several

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
        beside = page and page.with_name(f"{page.stem}-labels.html")
        report_labels(evaluation.label_check, beside, f"{title}: photos in doubt", strict=strict)
        lines, content = text_lines(evaluation, shutil.get_terminal_size((100, 24)).columns), evaluation.to_json()
        if page is not None:
            write_evaluation(page, evaluation, title, made)
    content |= {"inputs": dict(facts), "page": page and str(page)}
    emit(form, lambda: content, [*lines, *([] if page is None else ["", f"page          {page}"])])
    return min(1, len(unreadable))


def report_labels(check: LabelCheck | None, page: Path | None, title: str, command: str = "", *, strict: bool) -> None:
    """Print a line about photos that may lie in the wrong folder, and write the page.

    Args:
        check: The photos; None if nobody looked.
        page: The page; None writes none.
        title: What was checked.
        command: The command that takes the page's list.
        strict: Refuse to go on.

    Raises:
        Refusal: There are such photos, with ``strict``.
        WriteError: The page cannot be written.
    """
    from sar_infer.evaluation.labels import write_labels

    if check is None or not (line := check.line(page or "name one with --html PAGE")):
        return
    if page is not None:
        write_labels(page, check, title, command)
    if strict:
        raise Refusal(f"nothing was changed: --strict, and {line}")
    warn(line)
