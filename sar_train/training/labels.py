"""Photos that may lie in the wrong folder, looked at before a run learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from sar_infer.errors import WriteError
from sar_infer.evaluation.labels import LIST, LabelCheck, write_labels
from sar_train.data.dataset import Split
from sar_train.data.progress import ProgressCallback
from sar_train.errors import DataError, RunError
from sar_train.training.context import Outline, RunContext


def check_task(context: RunContext) -> LabelCheck:
    """Check the labels of the photos that a run learns from, and find copies of them among its test photos."""
    task, dataset = context.task, context.features.dataset
    side = task.base if dataset.split_origin != "published" else None
    copies = [] if side is None else side.copies_of(task.features[:, 0])
    learned, split = context.learned_rows, context.plan.split
    pairs = [(_path(context, "train", learned[at]), _path(context, split, row)) for row, at in copies]
    return check(context, learned, task.features[:, 0], pairs)


def check(run: Outline, rows: Sequence[int], embeddings: Tensor, copies: Sequence[tuple[str, str]] = ()) -> LabelCheck:
    """Check the labels of photos that a run learns from.

    Args:
        run: the run.
        rows: their rows in the training split.
        embeddings: (N, D) their plain views.
        copies: paths of training photos and of test photos of the same content.
    """
    dataset, numbers = run.features.dataset, {label: number for number, label in enumerate(run.plan.base)}
    classes: dict[str, str] = {}
    for split in dataset.splits if copies or dataset.twice else ():
        for row, photo in enumerate(dataset.photos(split)):
            classes[_path(run, split, row)] = dataset.class_names[photo.label]
    return LabelCheck(
        run.names(run.plan.base),
        embeddings.float().cpu().numpy(),
        np.array([numbers[dataset.photos("train")[row].label] for row in rows], np.intp),
        [_path(run, "train", row) for row in rows],
        twice=[((str(one), classes[str(one)]), (str(two), classes[str(two)])) for one, two in dataset.twice],
        copies=[((one, classes[one]), (two, classes[two])) for one, two in copies],
    )


def report(check: LabelCheck, page: Path, data: str, tell: ProgressCallback, *, strict: bool = False) -> Path | None:
    """Print a line about photos that may lie in the wrong folder, and return their page; None if none is written.

    Features have no photos to show, so they have no page.

    Args:
        check: the photos.
        page: the file to write.
        data: what the user named.
        tell: gets the line.
        strict: refuse to go on.

    Raises:
        DataError: there are such photos, with ``strict``.
        RunError: the page cannot be written.
    """
    shown = page if check.photos and Path(check.photos[0]).is_file() else None
    line = check.line(shown)
    if line is None:
        return None
    try:
        if shown is not None:
            page.parent.mkdir(parents=True, exist_ok=True)
            write_labels(page, check, f"Photos of {Path(data).name}", f"sar-train {data} … --exclude {LIST}")
    except (OSError, WriteError) as error:
        raise RunError(str(error)) from None
    if strict:
        raise DataError(f"--strict, and {line}")
    tell(f"Warning: {line}")
    return shown


def _path(run: Outline, split: Split, row: int) -> str:
    """Return the path of a photo; one of a feature file has a number instead."""
    path = run.features.dataset.photos(split)[row].path
    return str(run.features.dataset.root / path) if path else f"{split} photo {row + 1}"
