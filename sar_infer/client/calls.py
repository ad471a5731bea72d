"""What a client asks of a server, and what it makes of the answers; the same for both kinds of client."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sar_infer.client.answers import ClassEntry, ClassList, class_entry, image_result, read
from sar_infer.client.exchange import Call, Steps, answered
from sar_infer.client.options import Options
from sar_infer.client.pictures import Picture, Sizes
from sar_infer.errors import ImageError, InputError, ServerError
from sar_infer.results import ImageResult

if TYPE_CHECKING:
    from sar_infer._arrays import Floats

_TOO_LARGE = 413
_PLACE = re.compile(r"input\[(\d+)\]: ")
_NAMES = 256
_PAGE = 1000
_CHANGES_SEEN = 5


class Calls:
    """Steps for everything that a client can do.

    Args:
        retries: How often a call is made again where the server is busy or not ready.
    """

    def __init__(self, retries: int) -> None:
        self.sizes = Sizes()
        self._retries = retries

    def classify(self, pictures: Sequence[Picture], options: Options) -> Steps[list[ImageResult]]:
        """One result a picture, in order; a bad picture fails alone."""
        found = iter((yield from self._classified([p for p in pictures if p.error is None], options)))
        return [next(found) if p.error is None else ImageResult(p.name, error=p.error) for p in pictures]

    def embed_images(self, pictures: Sequence[Picture]) -> Steps[Floats]:
        """Unit rows (N, D).

        Raises:
            ImageError: a picture cannot be read, here or there; names it.
        """
        for picture in pictures:
            if picture.error is not None:
                raise ImageError(f"{picture.name}: {picture.error}")
        images = [base64.b64encode(picture.data).decode() for picture in pictures]
        try:
            return (yield from self._embed({"input": images, "modality": "image"}))
        except ServerError as error:
            if place := _PLACE.match(error.detail):
                raise ImageError(f"{pictures[int(place[1])].name}: {error.detail[place.end() :]}") from error
            if error.status != _TOO_LARGE or len(pictures) == 1:
                raise
            self.sizes.refused(pictures, error.code)
        half = len(pictures) // 2
        first = yield from self.embed_images(pictures[:half])
        return rows([first, (yield from self.embed_images(pictures[half:]))])

    def embed_names(self, names: Sequence[str]) -> Steps[Floats]:
        """Unit rows (N, D), one a name."""
        if isinstance(names, str):
            raise InputError(f"names: expected a list of names, got the string {names!r}")
        parts, rest = [], iter(names)
        while part := list(islice(rest, _NAMES)):
            parts.append((yield from self._embed({"input": part})))
        return rows(parts)

    def classes(self) -> Steps[ClassList]:
        """The whole bank, page by page; begun again where it is changed meanwhile."""
        for _ in range(_CHANGES_SEEN):
            found: list[ClassEntry] = []
            etag = None
            while True:
                page = {"offset": len(found), "limit": _PAGE}
                reply = yield from answered(Call("GET", "/v1/classes", query=page), self._retries)
                entries, count, bank = read(
                    reply, lambda told: ([class_entry(entry) for entry in told["classes"]], told["count"], told["bank"])
                )
                if etag not in (None, bank):
                    break
                etag = str(bank)
                found += entries
                if len(found) >= count or not entries:
                    return ClassList(tuple(found), etag)
        raise ServerError("the classes change faster than they can be read", None, "unsteady")

    def add_class(self, name: str, phrases: Sequence[str] | None, if_match: str | None) -> Steps[str]:
        """The bank's ETag after it."""
        if isinstance(phrases, str):
            raise InputError(f"phrases: expected a list of phrases, got the string {phrases!r}")
        body = None if phrases is None else {"phrases": list(phrases)}
        return (yield from self._change("PUT", name, if_match, body))

    def remove_class(self, name: str, if_match: str | None) -> Steps[str]:
        """The bank's ETag after it."""
        return (yield from self._change("DELETE", name, if_match, None))

    def model(self) -> Steps[dict[str, Any]]:
        """What ``/v1/model`` tells."""
        reply = yield from answered(Call("GET", "/v1/model"), self._retries)
        return read(reply, dict)

    def ready(self) -> Steps[bool]:
        """Asked once: not being ready is an answer."""
        try:
            yield from answered(Call("GET", "/readyz"), 0)
        except ServerError as error:
            if error.status != 503:
                raise
            return False
        return True

    def reload(self) -> Steps[str]:
        """Digest of the bundle that answers now."""
        reply = yield from answered(Call("POST", "/v1/reload"), self._retries)
        return read(reply, lambda told: str(told["digest"]))

    def _classified(self, pictures: list[Picture], options: Options) -> Steps[list[ImageResult]]:
        """A request that is too large is halved, until a picture is too large alone."""
        if not pictures:
            return []
        try:
            reply = yield from answered(options.call(pictures), self._retries)
        except ServerError as error:
            if error.status != _TOO_LARGE:
                raise
            if len(pictures) == 1:
                return [ImageResult(pictures[0].name, error=error.detail)]
            self.sizes.refused(pictures, error.code)
        else:
            return read(reply, lambda told: list(_results(pictures, told["results"], options)))
        half = len(pictures) // 2
        first = yield from self._classified(pictures[:half], options)
        return first + (yield from self._classified(pictures[half:], options))

    def _embed(self, what: dict[str, Any]) -> Steps[Floats]:
        body = {"model": "sar-clip", "encoding_format": "base64", **what}
        reply = yield from answered(Call("POST", "/v1/embeddings", json=body), self._retries)
        return read(reply, lambda told: _decoded(told["data"], len(what["input"])))

    def _change(self, method: str, name: str, if_match: str | None, body: Any) -> Steps[str]:
        if not name.strip():
            raise InputError("class name: expected text, got an empty one")
        headers = {} if if_match is None else {"If-Match": if_match if if_match == "*" else f'"{if_match}"'}
        call = Call(method, f"/v1/classes/{_segment(name)}", headers=headers, json=body)
        reply = yield from answered(call, self._retries)
        return reply.headers.get("etag", "").strip('"')


def _segment(name: str) -> str:
    """A name as one segment of a path; one of dots alone would be taken for a step up."""
    return quote(name, safe="") if name.strip(".") else "%2E" * len(name)


def rows(parts: Sequence[Floats]) -> Floats:
    """Arrays of rows as one; of no row the length is not known."""
    import numpy as np

    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _results(pictures: Sequence[Picture], found: Any, options: Options) -> Iterator[ImageResult]:
    given = options.spellings
    return (image_result(picture.name, one, given) for picture, one in zip(pictures, found, strict=True))


def _decoded(data: Any, count: int) -> Floats:
    import numpy as np

    items = sorted(data, key=lambda item: int(item["index"]))
    if len(items) != count:
        raise ValueError(f"expected {count} rows, got {len(items)}")
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items], dtype=np.float32)
