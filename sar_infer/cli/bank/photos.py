"""Photos on the command line of ``sar-bank``: which files belong to which class, reading them, and what is odd."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import Workspace, counted
from sar_infer.cli.options import warn
from sar_infer.errors import InputError, one_line
from sar_infer.images.inputs import is_class_list, left_out_line, read_class_list, read_excluded
from sar_infer.images.projects import is_project

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bank.class_bank import Lookup
    from sar_infer.class_model.spool import FeatureSpool
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation.labels import LabelCheck
    from sar_infer.evaluation.reading import ReadPhotos
    from sar_infer.text.names import Phrases

    Files = Mapping[str, Sequence[str]]

_DIGEST = re.compile("[0-9a-f]{64}")


def files_by_class(lookup: Lookup, class_phrases: Phrases, paths: Sequence[str], exclude: Path | None = None) -> Files:
    """Return image paths by class: those of the one class that is given, or with none given one folder for each.

    With no class given, a path may also be a list of photos with their classes (`images.inputs`).

    Args:
        lookup: The classes that there are, whose spelling holds.
        class_phrases: Phrases of the class that is given.
        paths: The arguments.
        exclude: A list of photos to leave out.

    Raises:
        InputError: there is no such file, no image in a folder, no folder of a class, or with a class given only those;
            or nothing is left of a class.
    """
    from sar_infer.images.inputs import expand, folders, kind_of

    if not paths:
        return {}
    for root in paths if class_phrases else ():
        if is_project(root):
            raise InputError(f"{root}: a project with classes of its own; leave the name out to add each")
        files = expand([root])
        if kind_of(root) == "folder" and not any(Path(file).parent == Path(root) for file in files):
            raise InputError(
                f"{root}: contains folders of classes but no photo of its own; leave the name out to add each, or name "
                f"one of them, such as {Path(root, Path(files[0]).relative_to(root).parts[0])}"
            )
    paths_by_class: dict[str, list[str]] = {name: expand(paths, warn) for name in class_phrases}
    for root in () if class_phrases else paths:
        photos = read_class_list(Path(root)) if is_class_list(root) else folders(root, warn, lookup.get)
        for name, files in photos.items():
            paths_by_class.setdefault(lookup.spelling(name), []).extend(files)
    if not (excluded := read_excluded(exclude)):
        return paths_by_class
    absolute = {file: os.path.realpath(file) for files in paths_by_class.values() for file in files}
    left = {name: [file for file in files if absolute[file] not in excluded] for name, files in paths_by_class.items()}
    if empty := [name for name, files in left.items() if not files]:
        raise InputError(f"{exclude}: leaves no photo of class {empty[0]!r}; shorten the list, or remove its folder")
    click.echo(one_line(left_out_line(exclude, excluded, {*absolute.values()})), err=True)
    return left


def digests_of(workspace: Workspace, paths: Sequence[str]) -> dict[bytes, str]:
    """Return the path of each photo by the digest of its pixels; an argument that is a digest (hex) is that photo's.

    Raises:
        InputError: There is no such file.
    """
    from sar_infer.images.inputs import expand

    digests = {path: bytes.fromhex(path) for path in paths if _DIGEST.fullmatch(path) and not Path(path).exists()}
    files = [path for path in paths if path not in digests]
    photos = workspace.classifier.each_photo(expand(files)) if files else ()
    return {digest: path for path, digest in digests.items()} | {digest: path for path, digest, _ in photos}


def read_photos(
    classifier: Classifier,
    files: Files,
    *,
    photos_only: bool = False,
    skip_unreadable: bool = False,
    label: str = "Reading photos",
) -> ReadPhotos:
    """Read and embed photos, with a bar on a terminal, and list those that are skipped.

    Raises:
        ImageError: Photos cannot be read; the message names all of them.
    """
    pairs = [(name, path) for name, paths in files.items() for path in paths]
    read = classifier.read_photos(
        counted(pairs, len(pairs), label, lambda _: 1),
        photos_only=photos_only,
        skip_unreadable=skip_unreadable,
    )
    for name, path, why in read.unreadable:
        warn(f"{name!r} photo {path!r:.200} is left out: {why}")
    return read


def spooled(
    workspace: Workspace,
    places: Sequence[str],
    skipped: Callable[[str, str], object],
    column: str = "image",
    key_column: str | None = None,
) -> FeatureSpool:
    """Return the features of photos in folders, lists, shards and Parquet files, read with a bar on a terminal.

    Args:
        workspace: Has the encoder.
        places: The arguments.
        skipped: Called with key and reason of each photo that cannot be read.
        column: Column of the images in Parquet files.
        key_column: Column of their keys.

    Raises:
        InputError: No photo can be read.
    """
    from sar_infer.bulk.features import count_photos, features
    from sar_infer.class_model.spool import FeatureSpool

    total = count_photos(places, column, key_column)
    chunks = features(places, workspace.classifier, skipped, column=column, key_column=key_column)
    bar = counted(chunks, total or 0, "Reading photos", lambda chunk: len(chunk[0]))
    if not len(spool := FeatureSpool(workspace.bank.dim, bar)):
        spool.close()
        raise InputError(f"{', '.join(places)}: no photo that can be read")
    return spool


def already_counted(bank: ClassBank, photos: ReadPhotos) -> list[tuple[str, str, str]]:
    """Return class, file and reason of the photos that a bank counts for their class already."""
    names = [name for name in photos.sets if bank.lookup.get(name) is not None]
    had = {(name, digest) for name in names for digest in bank.entry(name).photos.digests}
    return [(name, path, "counted for it already") for (name, d), path in photos.files.items() if (name, d) in had]


def checked(workspace: Workspace, photos: ReadPhotos) -> LabelCheck:
    """Print which photos are left out, and check the labels of the others."""
    from sar_infer.evaluation.labels import check_new_photos

    bank = workspace.bank
    for name, path, why in [*already_counted(bank, photos), *photos.repeats]:
        click.echo(one_line(f"{name!r} photo {path!r:.200} is left out: {why}"), err=True)
    sets = {bank.lookup.spelling(name): one for name, one in photos.sets.items()}
    files = {(bank.lookup.spelling(name), digest): path for (name, digest), path in photos.files.items()}
    return check_new_photos(bank, workspace.bundle, sets, files, photos.twice)
