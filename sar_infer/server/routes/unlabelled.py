"""Photos without labels in a request: images, embeddings of images, or a folder that the operator allowed.

Photos of a folder are listed, read and encoded a few at a time, beside other requests and in constant memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from sar_infer._arrays import Floats
from sar_infer.bulk.items import printable
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.images.formats import has_image_suffix
from sar_infer.server.http.request import IMAGES, Texts
from sar_infer.server.model.engine import Engine, ImageInput
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service, in_thread

EMBEDDINGS = "in place of images: of /v1/embeddings with encoding_format base64, so that more fit in a call"
_FOLDER = "in place of images: the path of a folder below --photos; . is all of it"
_UNIT = 0.01
_AT_ONCE = 8
"""Photos of a folder in the engine at once: a photo of another request waits for so many at most."""
_MOST_ERRORS = 100


class Unlabelled(BaseModel):
    """Photos without labels, in one of three forms."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    embeddings: Annotated[Texts, Field(min_length=1)] | None = Field(None, description=EMBEDDINGS)
    folder: str | None = Field(None, description=_FOLDER)


class PhotoFeatures(FeatureSpool):
    """The features of photos without labels; a key is the photo's number in the request, or its path in the folder.

    Attributes:
        unreadable: Number of photos that cannot be read.
        errors: Keys and errors of the first of them.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.unreadable = 0
        self.errors: list[tuple[str, ImageError]] = []

    async def encode(self, engine: Engine, photos: Sequence[tuple[str, ImageInput]]) -> None:
        """Add the features of photos, which come with their keys, or why there are none."""
        outcomes = await engine.each([image for _, image in photos], lambda rows: rows)
        for (key, _), outcome in zip(photos, outcomes, strict=True):
            if outcome.value is not None:
                self.add([key], outcome.value[np.newaxis])
            elif outcome.error is not None:
                self.unreadable += 1
                self.errors += [(key, outcome.error)] if self.unreadable <= _MOST_ERRORS else []


@contextlib.asynccontextmanager
async def photo_features(
    request: Request,
    service: Service,
    engine: Engine,
    photos: Unlabelled,
    images: Sequence[ImageInput],
    most: int | None = None,
) -> AsyncIterator[PhotoFeatures]:
    """Encode the photos of a call.

    Args:
        request: The request. If it names a folder, its deadline is lifted; encoding ends when its client leaves.
        service: Admits the images; one request at a time may hold the features of a folder.
        engine: Encodes them.
        photos: The call.
        images: Its images, if it has any.
        most: Photos of a folder, at most.

    Raises:
        Problem: ``invalid-request`` if there are no photos, or of two kinds, or embeddings of another encoder, or no
            folder below the allowed one, or one without a photo that can be read; ``overloaded`` while another request
            holds a folder's; ``too-many-images``.
    """
    if sum(content is not None for content in (photos.images, photos.embeddings, photos.folder)) != 1:
        raise Problem("invalid-request", "expected either images or embeddings or folder")
    folder, texts, width = photos.folder, photos.embeddings, engine.bundle.manifest.embed_dim
    with service.admission.folders.hold(int(folder is not None)), PhotoFeatures(width) as features:
        if folder is not None:
            await _encode_folder(request, service, engine, folder, features, most)
        elif texts is not None:
            rows = await service.in_turn(4 * width * len(texts), lambda: _embedded(texts, width))
            features.add([str(number) for number in range(len(rows))], rows)
        else:
            with service.admission.images.hold(len(images)):
                await features.encode(engine, [(str(number), image) for number, image in enumerate(images)])
        yield features


async def _encode_folder(
    request: Request, service: Service, engine: Engine, folder: str, features: PhotoFeatures, most: int | None
) -> None:
    """Encode the photos of a folder, by its path below the allowed one; otherwise as ``photo_features``."""
    root, largest = service.settings.photos, service.settings.limits.body_bytes
    if root is None:
        raise Problem("invalid-request", "folder: this server allows none; start it with --photos DIR")
    top = await in_thread(lambda: _below(root, folder))
    request.state.timeout.reschedule(None)
    paths, count = image_paths(top), 0

    def read() -> list[tuple[str, ImageInput]]:
        batch = itertools.islice(paths, _AT_ONCE)
        return [(printable(path.relative_to(root).as_posix()), _content(root, path, largest)) for path in batch]

    while batch := await in_thread(read):
        count += len(batch)
        if most is not None and count > most:
            raise Problem("too-many-images", f"folder: expected at most {most:,} photos; name a smaller one")
        await features.encode(engine, batch)
    if not len(features):
        raise Problem("invalid-request", f"folder: no photo that can be read in {folder!r:.80}")


def _below(root: Path, folder: str) -> Path:
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


def _content(root: Path, path: Path, largest: int) -> ImageInput:
    """Return the content of a file of ``largest`` bytes at most, or why a request may not have it."""
    try:
        if not _is_inside(root, path) or not path.is_file():
            return ImageError("no file of the folder, but a link out of it or a device")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return ImageError(f"cannot be read: {reason_of(error)}")
    return content if len(content) <= largest else ImageError(f"larger than {largest / 2**20:.3g} MiB", "size")


def _is_inside(root: Path, path: Path) -> bool:
    return path.resolve(strict=True).is_relative_to(root.resolve())


def _embedded(texts: Sequence[str], width: int) -> Floats:
    """Decode embeddings of images in base64, as ``/v1/embeddings`` returns them, to unit rows (N, ``width``).

    Raises:
        Problem: ``invalid-request``: they are none of this server's encoder.
    """
    try:
        rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in texts]
    except (binascii.Error, ValueError):
        raise Problem("invalid-request", "embeddings: expected little-endian float32 in base64") from None
    if any(row.shape != (width,) or not abs(float(np.linalg.norm(row)) - 1) < _UNIT for row in rows):
        raise Problem(
            "invalid-request", f"embeddings: expected {width} numbers each, of length 1, as this server makes"
        )
    return np.array(rows, np.float32).reshape(-1, width)
