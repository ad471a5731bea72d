"""``POST /v1/learn`` and ``POST /v1/suggest``: what photos that nobody labelled teach, and which groups they form.

They come as images, as embeddings of images, or in a folder that the operator allowed, of which a few at a time are
listed, read and encoded, beside other requests and in constant memory. Nothing is learned from other requests.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from sar_infer._arrays import Floats
from sar_infer.bulk.containers import printable
from sar_infer.classifiers.learning_report import LearnedClass, PhotoNote
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.images.formats import has_image_suffix
from sar_infer.server.http.body import FORM, JSON, media_type, read_call, read_images, read_json
from sar_infer.server.http.openapi import form, problems, request_body
from sar_infer.server.http.request import IMAGES, Keyed, Texts, Writable
from sar_infer.server.model.engine import Engine, ImageInput
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.routes.classes import IfMatch
from sar_infer.server.service import Service, in_thread

router = APIRouter(tags=["classes"])
_EMBEDDINGS = "in place of images: of /v1/embeddings with encoding_format base64, so that more fit in a call"
_FOLDER = "in place of images: the path of a folder below --photos; . is all of it"
_UNIT = 0.01
_AT_ONCE = 8
"""Photos of a folder in the engine at once: a photo of another request waits for so many at most."""
_MOST_ERRORS = 100
_MOST_EMBEDDINGS = 1000
"""Photos of a call that come as embeddings; they are compared in pairs."""
_MOST_OF_A_FOLDER = 20_000
"""Photos of a folder; their rows are in memory."""


class Unlabelled(BaseModel):
    """Photos without labels, in one of three forms."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    embeddings: Annotated[Texts, Field(min_length=1)] | None = Field(None, description=_EMBEDDINGS)
    folder: str | None = Field(None, description=_FOLDER)


class LearnRequest(Unlabelled):
    """Photos without labels."""

    all_known: bool = Field(False, description="every photo is of one of the bank's classes: learn more")
    dry_run: bool = Field(False, description="change nothing")


class UnreadablePhoto(BaseModel):
    """A photo of the folder that is left out."""

    key: str
    error: str


class LearnAnswer(BaseModel):
    """The report of ``sar-bank learn``."""

    photos: int
    counted: int
    strangers: int = Field(description="photos like none of the classes, set aside")
    doubtful: int
    all_known: bool
    classes: list[LearnedClass]
    changed: int = Field(description="photos whose answer changes")
    examples: list[PhotoNote] = Field(description="keys are places in the request, or paths below the allowed folder")
    look_first: list[PhotoNote]
    shift: float = Field(description="share of the photos' shift that is common to all, as a camera's")
    translated: float = Field(description="what is taken off before ranking, as a share of the spread of classes")
    different: bool = Field(description="the photos are of another kind than those of the class statistics")
    unreadable: int = Field(description="photos of the folder that cannot be read; in a request, each is refused")
    errors: list[UnreadablePhoto] = Field(description="the first 100 of them")
    bank: str


class SuggestRequest(Unlabelled):
    """The JSON form of a call: images, or embeddings of them."""

    embeddings: Annotated[Texts, Field(min_length=1, max_length=_MOST_EMBEDDINGS)] | None = Field(
        None, description=_EMBEDDINGS
    )


class Answer(BaseModel):
    """A class with its score."""

    label: str
    score: float


class PhotoGroup(BaseModel):
    """Photos that look alike."""

    size: int
    like: str | None = Field(description="the class that they look like; null if they look like none")
    nearest: list[Answer] = Field(description="the best answers, with their mean score over the group")
    photos: list[int | str] = Field(
        description="numbers in the call, from 0, or paths below the allowed folder; the most typical photos first"
    )


class LabelWorth(BaseModel):
    """A photo whose label would help."""

    photo: int | str = Field(description="its number in the call, from 0, or its path below the allowed folder")
    answers: list[Answer] = Field(description="the two answers between which it is in doubt")


class Unreadable(BaseModel):
    """An image that is in no group."""

    photo: int | str
    error: str
    error_code: str


class SuggestAnswer(BaseModel):
    """Groups, first those like no class and of these the largest; and photos worth a label, the best first."""

    photos: int
    classes: int
    groups: list[PhotoGroup]
    labels: list[LabelWorth]
    errors: list[Unreadable]
    bank: str = Field(description="digest of the bank's content, also its ETag")


@router.post(
    "/v1/learn",
    response_model=LearnAnswer,
    responses=problems(403, 409, 412, 422, 503, 507),
    openapi_extra=request_body(LearnRequest),
)
async def learn(request: Request, service: Writable, if_match: IfMatch = None) -> Response:
    """Learn from photos, in place of what was learned before; one step of the bank's history.

    The photos are those of this request, or of a folder that the operator allowed (``--photos``). The bank keeps sums
    by class, never a photo. Needs a server with a key, ``--bank``, and class statistics.
    """
    call = await read_json(request, service, LearnRequest)
    images = await read_images(service, call.images)
    kind = "embeddings" if call.images is None else "images"
    with service.lease() as engine:
        async with _photo_features(request, service, engine, call, images) as features:
            if images and features.errors:
                number, error = features.errors[0]
                raise Problem(IMAGE_CODES[error.kind], f"images[{number}]: {error}")
            options = {"all_known": call.all_known, "dry_run": call.dry_run}
            report, etag = await service.change(
                lambda: service.store.learn(engine.classifier, features, if_match, **options)
            )
    errors = [{"key": key, "error": str(error)} for key, error in features.errors]
    content = asdict(report) | {"unreadable": features.unreadable, "errors": errors, "bank": etag}
    if call.folder is None:
        for photo in (*content["examples"], *content["look_first"]):
            photo["key"] = f"{kind}[{photo['key']}]"
    return JSONResponse(content, headers={"ETag": f'"{etag}"'})


@router.post(
    "/v1/suggest",
    response_model=SuggestAnswer,
    responses=problems(403, 422, 503),
    openapi_extra=request_body(SuggestRequest, form()),
)
async def suggest(request: Request, service: Keyed) -> Response:
    """Find groups of photos that are of no class yet, and photos whose label would help most.

    The photos are those of this request, as images or embeddings, or of a folder that the operator allowed
    (``--photos``). Changes nothing; PUT /v1/classes/{name} makes a class of a group. Needs a server with a key, and the
    extra ``suggest``.
    """
    kind = media_type(request)
    if kind not in (FORM, JSON):
        raise Problem("unsupported-media-type", f"expected multipart/form-data or application/json, got {kind!r:.80}")
    call, images = await read_call(request, service, SuggestRequest)
    numbered = call.folder is None
    with service.lease() as engine:
        async with _photo_features(request, service, engine, call, images, _MOST_OF_A_FOLDER) as features:
            rows = np.array(features.rows)
            keys = [*map(int, features.keys())] if numbered else [*features.keys()]
        bank = (await service.current()).bank
        classes = await engine.names.class_set({}, only=False, bank=bank)

        def look() -> dict[str, Any]:
            suggestions = engine.classifier.suggest(rows, classes)
            return engine.classifier.described(suggestions, rows, classes, keys)

        with service.admission.changes.hold(1):
            async with service.suggesting:  # one at a time: photos are compared in pairs
                content = await in_thread(look)
    errors = [
        {"photo": int(key) if numbered else key, "error": str(error), "error_code": IMAGE_CODES[error.kind]}
        for key, error in features.errors
    ]
    answer = {**content, "errors": errors, "bank": bank.content_digest}
    return Response(to_json(answer), media_type="application/json")


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
async def _photo_features(
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
    """Encode the photos of a folder, by its path below the allowed one; otherwise as ``_photo_features``."""
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
