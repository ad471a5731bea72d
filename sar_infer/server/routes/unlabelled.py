"""Photos without labels in a request: images, embeddings of images, or a folder that the operator allowed."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from sar_infer._arrays import Floats
from sar_infer.classifiers.spool import FeatureSpool
from sar_infer.server.http.request import IMAGES, Texts
from sar_infer.server.model.engine import Engine, ImageInput
from sar_infer.server.photo_folder import PhotoFeatures, folder_features
from sar_infer.server.problems import Problem
from sar_infer.server.service import Service

EMBEDDINGS = "in place of images: of /v1/embeddings with encoding_format base64, so that more fit in a call"
_FOLDER = "in place of images: the path of a folder below --photos; . is all of it"
_UNIT = 0.01


class Unlabelled(BaseModel):
    """Photos without labels, in one of three forms."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[Texts, Field(min_length=1, description=IMAGES)] | None = None
    embeddings: Annotated[Texts, Field(min_length=1)] | None = Field(None, description=EMBEDDINGS)
    folder: str | None = Field(None, description=_FOLDER)


@contextlib.asynccontextmanager
async def photo_features(
    request: Request,
    service: Service,
    engine: Engine,
    photos: Unlabelled,
    images: Sequence[ImageInput],
    most: int | None = None,
) -> AsyncIterator[PhotoFeatures]:
    """Encode the photos of a call; the keys of those in the request are their numbers, from 0.

    Args:
        request: The request.
        service: Admits the images.
        engine: Encodes them.
        photos: The call.
        images: Its images, if it has any.
        most: Photos of a folder, at most.

    Raises:
        Problem: ``invalid-request`` if there are no photos, or of two kinds, or embeddings of another encoder; see
            also ``folder_features``.
    """
    if sum(content is not None for content in (photos.images, photos.embeddings, photos.folder)) != 1:
        raise Problem("invalid-request", "expected either images or embeddings or folder")
    if photos.folder is not None:
        async with folder_features(request, service, engine, photos.folder, most) as features:
            yield features
        return
    width = engine.bundle.manifest.embed_dim
    with FeatureSpool(width) as spool:
        features = PhotoFeatures(spool, len(images))
        if (texts := photos.embeddings) is not None:
            rows = await service.in_turn(4 * width * len(texts), lambda: _embedded(texts, width))
            spool.add([str(number) for number in range(len(rows))], rows)
        else:
            with service.admission.images.hold(len(images)):
                outcomes = await engine.each(images, lambda rows: rows)
            for number, outcome in enumerate(outcomes):
                features.add(str(number), outcome.error or outcome.value)
        yield features


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
