"""Photos of the folder that the operator allowed: listed, read and encoded a few at a time, beside other requests."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from starlette.requests import Request

from sar_infer._arrays import Floats
from sar_infer.bulk.items import printable
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.images.formats import has_image_suffix
from sar_infer.server.model.engine import Engine, ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service, in_thread

_AT_ONCE = 8
"""Photos in the engine at once: a photo of another request waits for so many at most."""


@dataclass
class PhotoFeatures:
    """The features of photos without labels.

    Attributes:
        spool: Keys of photos, such as paths below the allowed folder, and unit rows.
        unreadable: Number of photos that cannot be read.
        errors: The first ``most_errors`` of them: key and error.
    """

    spool: FeatureSpool
    most_errors: int = 100
    unreadable: int = 0
    errors: list[tuple[str, ImageError]] = field(default_factory=list)

    def add(self, key: str, content: Floats | ImageError | None) -> None:
        """Add the row (D,) of a photo, or why there is none."""
        if isinstance(content, ImageError):
            self.unreadable += 1
            if len(self.errors) < self.most_errors:
                self.errors.append((key, content))
        elif content is not None:
            self.spool.add([key], content[np.newaxis])


@contextlib.asynccontextmanager
async def folder_features(
    request: Request, service: Service, engine: Engine, folder: str, most: int | None = None
) -> AsyncIterator[PhotoFeatures]:
    """Encode the photos of a folder, in constant memory; the request may take as long as that needs.

    Args:
        request: Its deadline is lifted. Encoding ends when its client leaves.
        service: One request at a time may hold the features of a folder.
        engine: Encodes them.
        folder: A path below the allowed folder.
        most: Photos, at most.

    Raises:
        Problem: ``overloaded`` while another request holds a folder's; ``invalid-request`` if it is no folder below the
            allowed one or has no photo that can be read; ``too-many-images``.
    """
    with service.admission.folders.hold(1), FeatureSpool(engine.bundle.manifest.embed_dim) as spool:
        root = service.settings.photos
        if root is None:
            raise Problem("invalid-request", "folder: this server allows none; start it with --photos DIR")
        top = await in_thread(lambda: below(root, folder))
        request.state.timeout.reschedule(None)
        features, paths, count = PhotoFeatures(spool), image_paths(top), 0
        while batch := await in_thread(lambda: [*itertools.islice(paths, _AT_ONCE)]):
            count += len(batch)
            if most is not None and count > most:
                raise Problem("too-many-images", f"folder: expected at most {most:,} photos; name a smaller one")
            images = await in_thread(lambda batch=batch: [_content(root, path, service) for path in batch])  # type: ignore[misc]
            outcomes = await engine.each(images, lambda rows: rows)
            for path, outcome in zip(batch, outcomes, strict=True):
                features.add(printable(path.relative_to(root).as_posix()), outcome.error or outcome.value)
        if not len(spool):
            raise Problem("invalid-request", f"folder: no photo that can be read in {folder!r:.80}")
        yield features


def below(root: Path, folder: str) -> Path:
    """Return the folder that a request names by its path below the allowed one; ``.`` is all of that.

    Raises:
        Problem: ``invalid-request``: it is not there, hidden, or elsewhere, perhaps by a link. All are told alike.
    """
    path = PurePosixPath(folder)
    hidden = any(name.startswith(".") for name in path.parts)
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if not (hidden or path.is_absolute()) and _is_inside(root, top := root / path) and top.is_dir():
            return top
    raise Problem("invalid-request", f"folder: expected the path of a folder below --photos, got {folder!r:.80}")


def image_paths(folder: Path) -> Iterator[Path]:
    """Yield the visible images in a folder and those below it; linked folders are passed over.

    Raises:
        InputError: A folder cannot be listed.
    """

    def failed(error: OSError) -> None:
        path = Path(error.filename).relative_to(folder)
        raise InputError(f"folder: {printable(str(path))} in it cannot be listed: {reason_of(error)}")

    for parent, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if has_image_suffix(name) and name[0] != ".")


def _content(root: Path, path: Path, service: Service) -> ImageInput:
    """Return the content of a file, or why a request may not have it."""
    most = service.settings.limits.body_bytes
    try:
        if not _is_inside(root, path) or not path.is_file():
            return ImageError("no file of the folder, but a link out of it or a device")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return ImageError(f"cannot be read: {reason_of(error)}")
    return content if len(content) <= most else ImageError(f"larger than {most / 2**20:.3g} MiB", "size")


def _is_inside(root: Path, path: Path) -> bool:
    return path.resolve(strict=True).is_relative_to(root.resolve())
