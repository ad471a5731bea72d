"""Results of the answers: a bank, folders, a list."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sar_infer.bank import ClassBank, PhotoSet, edits
from sar_infer.bundle.bank_file import BankFile
from sar_infer.classifier import Classifier
from sar_infer.errors import InputError, WriteError, raised_as
from sar_infer.images.inputs import write_class_list

_NO_NAME = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


def write_bank(file: BankFile, classifier: Classifier, photos: Mapping[str, PhotoSet], by: str, written: str) -> str:
    """Write a bank of photos by class, with its class model, and return the digest of its content.

    Args:
        file: The bank file; if it has a bank of other origin, the photos are added to that bank.
        classifier: Has the encoder.
        photos: Photos by class name, of two classes at least.
        by: The author, for the history.
        written: The digest of the bank that was written last; a bank file with that content is replaced.

    Raises:
        InputError: There are fewer than two classes.
        WriteError: Another process is changing the file, or it cannot be written.
    """
    if len(photos) < 2:
        raise InputError(f"{len(photos)} of 2 classes with answered photos that a bank needs; answer more questions")
    phrases = {name: (name,) for name in photos}

    def changed(bank: ClassBank) -> ClassBank:
        if not file.path.exists() or bank.state_digest == written:
            return classifier.make_bank(phrases, photos, by=by)[0]
        more = edits.put_classes(bank, dict.fromkeys(photos), photos, classifier.class_rows, by=by)
        return edits.fit(more, classifier.fit_model(more).fitted.model.tensors(), by=by)

    after = edits.ahead(file.look(), changed)
    with file.changing() as (path, bank), raised_as(WriteError, f"{file.path}: not written", OSError):
        saved = after(bank)
        file.save(path, saved)
    return saved.state_digest


def write_folders(out: Path, photos: Iterable[tuple[str, str]], *, links: bool) -> int:
    """Copy or link photos, given as class and path, into a folder for each class, and return their number.

    Raises:
        InputError: The folder has content.
        WriteError: A photo cannot be copied.
    """
    count = 0
    with raised_as(WriteError, f"{out}: cannot be written", OSError):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: exists; expected a new or empty folder")
        for name, path in photos:
            folder = out / (_NO_NAME.sub("-", name).strip(". ") or "-")
            folder.mkdir(parents=True, exist_ok=True)
            source = Path(path)
            target, number = folder / source.name, 2
            while os.path.lexists(target):
                target, number = folder / f"{source.stem}-{number}{source.suffix}", number + 1
            if links:
                target.symlink_to(source.absolute())
            else:
                shutil.copyfile(source, target)
            count += 1
    return count


def write_list(out: Path, photos: Iterable[tuple[str, str]]) -> int:
    """Write photos, given as class and path, to a CSV list with paths relative to it, and return their number.

    Raises:
        WriteError: The list cannot be written.
    """
    base = os.path.abspath(out.parent)  # noqa: PTH100 - links stay
    rows = [(name, os.path.relpath(path, base), "") for name, path in photos]
    write_class_list(out, rows)
    return len(rows)
