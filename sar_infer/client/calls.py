"""Everything that a client can ask of a server, as steps that wait for nothing; both clients run them."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from sar_infer.client.answers import ClassEntry, ClassList, PhotosAdded, class_entry, image_result, photos_added
from sar_infer.client.exchange import Call, Steps, answered, read
from sar_infer.client.images import EncodedImage, Portions, RequestSizes
from sar_infer.errors import ImageError, InputError, ServerError
from sar_infer.results import PLAIN, DecisionOptions, ImageResult
from sar_infer.text.names import Classes, Phrases, phrases_by_name

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.images.load import ImageSource


T = TypeVar("T")
Mode = Literal["bank", "extend", "only"]
_CREATED, _TOO_LARGE = 201, 413
_POSITION = re.compile(r"(?:image|input)\[(\d+)\]: ")
_ENCODED_AT_ONCE = 16
"""Images of a request whose embeddings are learned from or grouped."""
_NAMES = 256
_PAGE = 1000
_MOST_READS = 5


@dataclass(frozen=True)
class ClassifyRequest:
    """A request to classify: what to choose from, and what to report.

    Attributes:
        classes: Phrases by name.
        mode: The server's word for what to choose from; None leaves it to the server.
        top_k: How many classes to return for each image, at most.
        decision: What to report beside them.
    """

    classes: Phrases
    mode: Mode | None
    top_k: int
    decision: DecisionOptions = PLAIN

    @classmethod
    def of(
        cls, classes: Classes | None, only: bool, top_k: int, mode: Mode | None, decision: DecisionOptions = PLAIN
    ) -> ClassifyRequest:
        """Return the request of a call, checked.

        Raises:
            ClassNameError: a name has no phrases, or something is not text.
            InputError: ``classes`` is a single string, ``only`` and ``mode`` disagree, or a threshold is asked for.
        """
        if decision.threshold is not None:
            raise InputError("a server has its bundle's threshold; leave it out")
        if only and mode not in (None, "only"):
            raise InputError(f"only and mode {mode!r} disagree; give one of them")
        return cls(phrases_by_name(classes), "only" if only else mode, top_k, decision)

    @property
    def spellings(self) -> dict[str, str]:
        """Return the names as given, by the server's spelling of each: composed letters and single spaces."""
        return {" ".join(unicodedata.normalize("NFC", name).split()): name for name in self.classes}

    def call(self, images: Sequence[EncodedImage]) -> Call:
        """Return the request: a form, or JSON if a class has phrases of its own, which a form cannot express."""
        options = {"mode": self.mode, "unknown": self.decision.unknown, "coverage": self.decision.coverage}
        fields: dict[str, Any] = {"top_k": self.top_k} | {k: v for k, v in options.items() if v is not None}
        if self.decision.explain:
            fields["explain"] = "true"
        if all(phrases == (name,) for name, phrases in self.classes.items()):
            fields |= {"classes": list(self.classes)}
            return Call("POST", "/v1/classify", fields=fields, files=[image.data for image in images])
        encoded = [base64.b64encode(image.data).decode() for image in images]
        classes = {name: list(phrases) for name, phrases in self.classes.items()}
        return Call("POST", "/v1/classify", json={**fields, "classes": classes, "images": encoded})


@dataclass(frozen=True)
class PhotosRequest:
    """A request to add photos to a class.

    Attributes:
        phrases: Texts to encode and average instead of the name; None leaves a class that is there as it is.
        photos_only: The name means nothing, only photos say what the class is.
        strict: Change nothing if a photo or the class is odd.
    """

    phrases: Sequence[str] | None = None
    photos_only: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.phrases, str):
            raise InputError(f"phrases: expected a list of phrases, got the string {self.phrases!r}")

    def call(self, name: str, images: Sequence[EncodedImage], if_match: str | None) -> Call:
        """Return the request, a form."""
        fields: dict[str, Any] = {} if self.phrases is None else {"phrases": list(self.phrases)}
        if self.photos_only:
            fields["photos_only"] = "true"
        return Call(
            "PUT",
            _class_path(name),
            headers=_condition(if_match),
            query={"strict": "true"} if self.strict else {},
            fields=fields,
            files=[image.data for image in images],
        )


@dataclass(frozen=True)
class _Unlabelled:
    """Photos that nobody labelled: embedded ones, or those of a folder of the server's.

    Attributes:
        names: The caller's name of each embedded image.
        rows: (N, D) unit rows of them.
        folder: In place of them, a folder below the one that the server allows.

    Raises:
        InputError: There is neither, or there are both.
    """

    names: Sequence[str]
    rows: Floats
    folder: str | None = None

    def __post_init__(self) -> None:
        if bool(self.names) == (self.folder is not None):
            raise InputError("expected either images or a folder of the server's")

    @property
    def content(self) -> dict[str, Any]:
        """Return the fields of a request."""
        if self.folder is not None:
            return {"folder": self.folder}
        return {"embeddings": [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in self.rows]}

    def name(self, key: int | str) -> str:
        """Return the caller's name of a photo in an answer: a number, ``embeddings[N]``, or a path in the folder."""
        if self.folder is not None:
            return str(key)
        return self.names[key if isinstance(key, int) else int(key.removeprefix("embeddings[").removesuffix("]"))]


def _joined(first: PhotosAdded | None, second: PhotosAdded) -> PhotosAdded:
    """Return the effect of two requests, one after the other."""
    if first is None:
        return second
    known_count, findings = first.known + second.known, (*first.findings, *second.findings)
    return PhotosAdded(second.etag, second.photos, known_count, findings, first.created)


class Calls:
    """Steps for everything that a client can do.

    Args:
        retries: How often a call is retried if the server is busy or not ready.
    """

    def __init__(self, retries: int) -> None:
        self._sizes = RequestSizes()
        self._retries = retries

    def portions(self, images: ImageSource | Iterable[ImageSource], batch_size: int) -> Portions:
        """Return images in portions that fill a request each, of ``batch_size`` images at most."""
        return Portions(images, self._sizes, batch_size)

    def classify(self, images: Sequence[EncodedImage], request: ClassifyRequest) -> Steps[list[ImageResult]]:
        """Return one result for each image, in order; an unreadable image fails alone."""

        def classified(images: Sequence[EncodedImage]) -> Steps[list[ImageResult]]:
            try:
                reply = yield from answered(request.call(images), self._retries)
            except ServerError as error:
                if error.status != _TOO_LARGE or len(images) > 1:
                    raise
                return [ImageResult(images[0].name, error=error.detail)]
            return read(reply, lambda json: list(_results(images, json["results"], request)))

        parts = yield from self._in_parts([image for image in images if image.error is None], classified)
        results = chain.from_iterable(parts)
        return [ImageResult(i.name, error=i.error) if i.error is not None else next(results) for i in images]

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int) -> Steps[Floats]:
        """Return unit rows (N, D)."""
        parts, portions = list[Any](), self.portions(images, batch_size)
        while portion := (yield from portions.take()):
            parts += yield from self._in_parts(portion, self._embedded)
        return _rows(parts)

    def embed_names(self, names: Sequence[str]) -> Steps[Floats]:
        """Return unit rows (N, D), one for each name."""
        if isinstance(names, str):
            raise InputError(f"names: expected a list of names, got the string {names!r}")
        parts, rest = [], iter(names)
        while batch := list(islice(rest, _NAMES)):
            parts.append((yield from self._embed({"input": batch})))
        return _rows(parts)

    def classes(self) -> Steps[ClassList]:
        """Return the whole bank, read page by page, from the start again if it changes meanwhile."""
        for _ in range(_MOST_READS):
            class_entries: list[ClassEntry] = []
            etag = None
            while True:
                page = {"offset": len(class_entries), "limit": _PAGE}
                reply = yield from answered(Call("GET", "/v1/classes", query=page), self._retries)
                entries, count, bank = read(
                    reply, lambda json: ([class_entry(entry) for entry in json["classes"]], json["count"], json["bank"])
                )
                if etag not in (None, bank):
                    break
                etag = str(bank)
                class_entries += entries
                if len(class_entries) >= count or not entries:
                    return ClassList(tuple(class_entries), etag)
        raise ServerError("the classes change faster than they can be read", None, "unsteady")

    def add_class(self, name: str, phrases: Sequence[str] | None, if_match: str | None) -> Steps[str]:
        """Add a class; return the bank's new ETag."""
        if isinstance(phrases, str):
            raise InputError(f"phrases: expected a list of phrases, got the string {phrases!r}")
        body = None if phrases is None else {"phrases": list(phrases)}
        return (yield from self._change("PUT", name, if_match, body))

    def add_photos(
        self,
        name: str,
        images: ImageSource | Iterable[ImageSource],
        request: PhotosRequest,
        if_match: str | None,
        batch_size: int,
    ) -> Steps[PhotosAdded]:
        """Add photos to a class, which is made if it is not there; ``if_match`` is for the first request."""
        added: PhotosAdded | None = None

        def add(images: Sequence[EncodedImage]) -> Steps[None]:
            nonlocal added
            condition = if_match and added.etag if added else if_match
            reply = yield from answered(request.call(name, images, condition), self._retries)
            etag, created = reply.headers.get("etag", "").strip('"'), reply.status == _CREATED
            added = _joined(added, read(reply, lambda json: photos_added(json, etag, created=created)))

        portions = self.portions(images, batch_size)
        while portion := (yield from portions.take()):
            yield from self._in_parts(portion, add)
        if added is None:
            raise InputError(f"no photo for class {name!r:.80}")
        return added

    def learn(
        self,
        images: ImageSource | Iterable[ImageSource],
        folder: str | None,
        *,
        all_known: bool,
        dry_run: bool,
        if_match: str | None,
    ) -> Steps[dict[str, Any]]:
        """Learn from photos without labels; return the report."""
        photos = yield from self._unlabelled(images, folder)
        body = {**photos.content, "all_known": all_known, "dry_run": dry_run}
        call = Call("POST", "/v1/learn", headers=_condition(if_match), json=body, patient=photos.folder is not None)
        reply = yield from answered(call, self._retries)

        def named(notes: Any) -> list[dict[str, Any]]:
            return [{**note, "key": photos.name(note["key"])} for note in notes]

        return read(reply, lambda json: {**json, **{k: named(json[k]) for k in ("examples", "look_first")}})

    def suggest(self, images: ImageSource | Iterable[ImageSource], folder: str | None) -> Steps[dict[str, Any]]:
        """Return groups among photos, and those worth a label."""
        photos = yield from self._unlabelled(images, folder)
        call = Call("POST", "/v1/suggest", json=photos.content, patient=photos.folder is not None)
        reply = yield from answered(call, self._retries)

        def named(json: Any) -> dict[str, Any]:
            groups = [{**group, "photos": [*map(photos.name, group["photos"])]} for group in json["groups"]]
            labels = [{**label, "photo": photos.name(label["photo"])} for label in json["labels"]]
            return {**json, "groups": groups, "labels": labels}

        return read(reply, named)

    def remove_class(self, name: str, if_match: str | None) -> Steps[str]:
        """Remove a class; return the bank's new ETag."""
        return (yield from self._change("DELETE", name, if_match, None))

    def history(self) -> Steps[list[dict[str, Any]]]:
        """Return the latest steps of the bank's history."""
        reply = yield from answered(Call("GET", "/v1/bank/history"), self._retries)
        return read(reply, lambda json: [dict(step) for step in json["steps"]])

    def rollback(self, to: int, if_match: str | None) -> Steps[str]:
        """Go back to a step of the history; return the bank's new ETag."""
        call = Call("POST", "/v1/bank/rollback", headers=_condition(if_match), json={"to": to})
        reply = yield from answered(call, self._retries)
        return read(reply, lambda json: str(json["bank"]))

    def model(self) -> Steps[dict[str, Any]]:
        """Return the answer of ``/v1/model``."""
        reply = yield from answered(Call("GET", "/v1/model"), self._retries)
        return read(reply, dict)

    def ready(self) -> Steps[bool]:
        """Return whether the server is ready; not retried, since not being ready is an answer."""
        try:
            yield from answered(Call("GET", "/readyz"), 0)
        except ServerError as error:
            if error.status != 503:
                raise
            return False
        return True

    def reload(self) -> Steps[str]:
        """Have the bundle opened again; return the digest of the one that answers now."""
        reply = yield from answered(Call("POST", "/v1/reload"), self._retries)
        return read(reply, lambda json: str(json["digest"]))

    def _unlabelled(self, images: ImageSource | Iterable[ImageSource], folder: str | None) -> Steps[_Unlabelled]:
        names, parts = list[str](), list[Any]()
        portions = self.portions(images, _ENCODED_AT_ONCE)
        while portion := (yield from portions.take()):
            names += [image.name for image in portion]
            parts += yield from self._in_parts(portion, self._embedded)
        return _Unlabelled(names, _rows(parts), folder)

    def _in_parts(
        self, images: Sequence[EncodedImage], send: Callable[[Sequence[EncodedImage]], Steps[T]]
    ) -> Steps[list[T]]:
        """Return the results of requests with all images; one that is too large is halved, down to single images.

        Args:
            images: The images of one request; there may be none.
            send: The steps of a request with some of them.

        Raises:
            ImageError: an image cannot be read, by the client or the server; the message names it.
        """
        if not images:
            return []
        for image in images:
            if image.error is not None:
                raise ImageError(f"{image.name}: {image.error}")
        try:
            return [(yield from send(images))]
        except ServerError as error:
            if match := _POSITION.match(error.detail):
                raise ImageError(f"{images[int(match[1])].name}: {error.detail[match.end() :]}") from error
            if error.status != _TOO_LARGE or len(images) == 1:
                raise
            self._sizes.refused(images, error.code)
        half = len(images) // 2
        first = yield from self._in_parts(images[:half], send)
        return first + (yield from self._in_parts(images[half:], send))

    def _embedded(self, images: Sequence[EncodedImage]) -> Steps[Floats]:
        encoded = [base64.b64encode(image.data).decode() for image in images]
        return (yield from self._embed({"input": encoded, "modality": "image"}))

    def _embed(self, content: dict[str, Any]) -> Steps[Floats]:
        body = {"model": "sar-clip", "encoding_format": "base64", **content}
        reply = yield from answered(Call("POST", "/v1/embeddings", json=body), self._retries)
        return read(reply, lambda json: _decoded(json["data"], len(content["input"])))

    def _change(self, method: str, name: str, if_match: str | None, body: Any) -> Steps[str]:
        call = Call(method, _class_path(name), headers=_condition(if_match), json=body)
        reply = yield from answered(call, self._retries)
        return reply.headers.get("etag", "").strip('"')


def _condition(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match if if_match == "*" else f'"{if_match}"'}


def _class_path(name: str) -> str:
    """Return the path of a class.

    Raises:
        InputError: the name is empty.
    """
    if not name.strip():
        raise InputError("class name: expected text, got an empty one")
    # dots alone would otherwise mean a folder above
    return "/v1/classes/" + (quote(name, safe="") if name.strip(".") else "%2E" * len(name))


def _rows(parts: Sequence[Floats]) -> Floats:
    """Join arrays of rows; without any, the result is (0, 0), since D is not known."""
    import numpy as np

    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _results(images: Sequence[EncodedImage], results: Any, request: ClassifyRequest) -> Iterator[ImageResult]:
    spellings = request.spellings
    return (image_result(image.name, one, spellings) for image, one in zip(images, results, strict=True))


def _decoded(data: Any, count: int) -> Floats:
    import numpy as np

    items = sorted(data, key=lambda item: int(item["index"]))
    if len(items) != count:
        raise ValueError(f"expected {count} rows, got {len(items)}")
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items], dtype=np.float32)
