"""The client of ``sar-serve``, with the methods of a ``Classifier``; it needs the extra ``client``.

::

    from sar_infer import Client

    with Client("http://localhost:8000") as client:
        for result in client.classify(["cat.jpg", "cup.png"], classes=["espresso", "tabby cat"]):
            print(result.image, result.predictions[0].label)

httpx2 is imported when a client is made, Pillow and numpy when a PIL image or an array is passed in. For what is not
here, such as requests from asyncio, the server describes itself in ``/openapi.json``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import quote

from sar_infer.errors import ImageError, InputError, ServerError, install
from sar_infer.images.sources import is_one, several
from sar_infer.results import PLAIN, DecisionOptions, Explanation, ImageResult, Label, Prediction
from sar_infer.text.names import Classes, phrases_by_name

if TYPE_CHECKING:
    import httpx2

    from sar_infer._arrays import Floats
    from sar_infer.images.load import ImageSource

T = TypeVar("T")
Images: TypeAlias = "ImageSource | Iterable[ImageSource]"
"""One image or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3)."""
Encoded = tuple[str, bytes | ImageError]
"""The name that a result gives an image, with its bytes or the reason why there are none."""
LONGEST_PAUSE = 20.0
"""Seconds; a retry comes sooner than asked for if the server asks for a longer pause."""
_NAMES, _PAGE, _BATCH = 256, 1000, 16
"""Names, classes and images of a request."""
_MOST_BYTES = 7 * 2**20
"""Bytes of images in a request: with base64 within the server's 10 MiB."""
_POSITION = re.compile(r"(?:image|input)\[(\d+)\]: ")


class Client:
    """A client of ``sar-serve``; safe to share between threads.

    Every method raises ``ServerError`` if the server refuses, cannot be reached or takes too long. A call that is
    refused because the server is busy (429) or not ready (503) is first retried, after the pause that the server asks
    for.

    Args:
        url: The server's address, with a path if a proxy adds one.
        key: The server's key, if it has one.
        timeout: The longest silence in seconds, for connecting, sending and answering each.
        retries: How often a call is retried.
        bank: A bank of the server's folder of banks, by its name; by default the server's own.

    Raises:
        InputError: the URL or key cannot be used, or httpx2 is not installed.
    """

    def __init__(
        self, url: str, key: str | None = None, timeout: float = 30, retries: int = 2, bank: str | None = None
    ) -> None:
        try:
            import httpx2
        except ModuleNotFoundError:
            raise InputError(f"the client needs httpx2: {install('client')}") from None
        if not re.match(r"https?://[^/?#]", url):
            raise InputError(f"url: expected http://HOST:PORT or https://…, got {url!r}")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise InputError("key: expected printable ASCII; a header cannot carry anything else")
        self.url = url
        self._retries = retries
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        params = {} if bank is None else {"bank": bank}
        silence = httpx2.Timeout(timeout, pool=None)
        self._http = httpx2.Client(base_url=url, headers=headers, params=params, timeout=silence)
        self._library = httpx2

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(  # noqa: PLR0913 - one for each option
        self,
        images: Images,
        classes: Classes | None = None,
        only: bool | None = None,
        top_k: int = 5,
        *,
        unknown: bool = False,
        threshold: float | None = None,
        explain: bool = False,
        coverage: float | None = None,
        several: bool = False,
    ) -> Any:
        """Classify images, as ``Classifier.classify`` does; many images are sent in several requests.

        Args:
            images: One image or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names, or phrases by name.
            only: True chooses only from ``classes``, False from the bank's too.
            top_k: How many classes to return for each image, at most.
            unknown: Give no class to an image that seems to be none of the classes.
            threshold: Probability of *unknown*, 0 to 1, above which it does, instead of the bank's own.
            explain: Report the reasons for the best class.
            coverage: Report the set of classes that includes the true one with this probability.
            several: Report each class that an image shows, or none (``labels``).

        Returns:
            One result, or a list with one for each of several images, in order; ``error`` is set if client or server
            could not read the image.

        Raises:
            InputError: ``classes`` is a string.
        """
        options = DecisionOptions(unknown, threshold, coverage, explain, several=several)
        results = list(self.stream(images, classes, only, top_k, options=options))
        return results[0] if is_one(images) else results

    def stream(
        self,
        images: Images,
        classes: Classes | None = None,
        only: bool | None = None,
        top_k: int = 5,
        *,
        batch_size: int = _BATCH,
        options: DecisionOptions = PLAIN,
    ) -> Iterator[ImageResult]:
        """Classify any number of images in constant memory, at most ``batch_size`` a request, one after the other."""
        phrases = phrases_by_name(classes)
        spellings = {" ".join(unicodedata.normalize("NFC", name).split()): name for name in phrases}
        mode = None if only is None or not (only or phrases) else "only" if only else "extend"
        fields: dict[str, Any] = {"top_k": top_k, "mode": mode, "coverage": options.coverage}
        fields["threshold"] = options.threshold
        fields |= {name: "true" for name in ("unknown", "explain", "several") if getattr(options, name)}
        fields = {name: value for name, value in fields.items() if value is not None}
        plain = all(texts == (name,) for name, texts in phrases.items())

        def classified(batch: Sequence[Encoded]) -> list[ImageResult]:
            call: dict[str, Any] = {"data": {**fields, "classes": list(phrases)}, "files": _files(batch)}
            if not plain:  # a form cannot express phrases
                call = {
                    "json": {**fields, "classes": {k: list(v) for k, v in phrases.items()}, "images": _texts(batch)}
                }
            try:
                results = self._json("POST", "/v1/classify", **call)["results"]
            except ServerError as error:
                if error.status != 413 or len(batch) > 1:
                    raise
                return [ImageResult(batch[0][0], error=error.detail)]
            return [_image_result(name, one, spellings) for (name, _), one in zip(batch, results, strict=True)]

        for batch in self._batches(images, batch_size):
            sound = [image for image in batch if not isinstance(image[1], ImageError)]
            results = (result for part in self._in_parts(sound, classified) for result in part)
            for name, data in batch:
                yield ImageResult(name, error=str(data)) if isinstance(data, ImageError) else next(results)

    def encode(self, images: Images) -> Floats:
        """Return the unit embedding (D,) of an image, or (N, D) of several.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
        """

        def embed(batch: Sequence[Encoded]) -> Floats:
            return self._embed(_texts(batch), "image")

        rows = _joined([part for batch in self._batches(images) for part in self._in_parts(batch, embed)])
        return rows[0] if is_one(images) else rows

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Return unit rows (N, D), one for each name, from the server's name encoder."""
        if isinstance(names, str):
            raise InputError(f"names: expected a list of names, got the string {names!r}")
        return _joined([self._embed(list(names[i : i + _NAMES]), "text") for i in range(0, len(names), _NAMES)])

    def classes(self) -> dict[str, Any]:
        """Return the classes of the bank as ``GET /v1/classes`` has them, all pages; ``bank`` is its ETag."""
        entries: list[dict[str, Any]] = []
        etag = None
        while True:
            page = self._json("GET", "/v1/classes", params={"offset": len(entries), "limit": _PAGE})
            if etag not in (None, page["bank"]):  # it has changed meanwhile: from the start again
                entries, etag = [], None
                continue
            etag = page["bank"]
            entries += page["classes"]
            if len(entries) >= page["count"] or not page["classes"]:
                return {**page, "classes": entries}

    def add(
        self,
        name: str,
        photos: Images | None = None,
        *,
        phrases: Sequence[str] | None = None,
        photos_only: bool = False,
        strict: bool = False,
        if_match: str | None = None,
    ) -> dict[str, Any]:
        """Add a class to the bank, by its name, photos, or both; needs a key, and a server with ``--bank``.

        Many photos are sent in several requests. Photos that are counted already are left out, so that the call can be
        repeated.

        Args:
            name: Name of the class.
            photos: One image or several, as in ``classify``.
            phrases: Texts to encode and average instead of the name; None leaves a class that is there as it is.
            photos_only: The name means nothing (``SKU-12345``), only photos say what the class is.
            strict: Refuse a request (409) if the name, one of its photos, or the class with them, is odd.
            if_match: The ETag that the bank must still have, else the change is refused (412).

        Returns:
            The server's answer to the last request, with ``known``, ``moved`` and ``findings`` of all, ``created`` and
            ``etag``.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
            InputError: there is no image, also with ``photos_only``, or ``phrases`` is a single string.
        """
        if photos is None:
            if photos_only:
                raise InputError("photos_only: expected photos too")
            call: dict[str, Any] = {"json": _phrases(phrases) or None, "params": {"strict": strict}}
            response = self._send("PUT", _class_path(name), if_match, **call)
            return {**response.json(), "created": response.status_code == 201, "etag": _etag(response)}
        data = _phrases(phrases) | ({"photos_only": "true"} if photos_only else {})
        done: dict[str, Any] = {"etag": if_match, "known": 0, "moved": [], "sent": 0, "findings": []}

        def add(batch: Sequence[Encoded]) -> None:
            parts: dict[str, Any] = {"files": _files(batch), "data": data, "params": {"strict": strict}}
            response = self._send("PUT", _class_path(name), if_match and done["etag"], **parts)
            new = response.json()
            moved = [{**one, "photo": done["sent"] + one["photo"]} for one in new["moved"]]
            counted = {"known": done["known"] + new["known"], "findings": done["findings"] + new["findings"]}
            counted |= {"moved": done["moved"] + moved, "sent": done["sent"] + len(batch)}
            created = done.get("created", response.status_code == 201)
            done.update(new, **counted, etag=_etag(response), created=created)

        for batch in self._batches(photos):
            self._in_parts(batch, add)
        if not done.pop("sent"):
            raise InputError(f"no photo for class {name!r:.80}")
        return done

    def learn(
        self, images: Images, *, all_known: bool = False, dry_run: bool = False, if_match: str | None = None
    ) -> dict[str, Any]:
        """Learn from photos that nobody labelled, which replaces what was learned before; needs a key and ``--bank``.

        Args:
            images: One image or several, as in ``classify``: they are encoded in several requests, and learned from in
                one.
            all_known: Every photo is of one of the bank's classes: learn more.
            dry_run: Change nothing.
            if_match: The ETag that the bank must still have, else the change is refused (412).

        Returns:
            The report, as ``POST /v1/learn`` has it; keys of photos are ``embeddings[N]``, by their order.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
        """
        call = {"all_known": all_known, "dry_run": dry_run, "embeddings": self._unlabelled(images)}
        return self._json("POST", "/v1/learn", if_match, json=call)

    def suggest(self, images: Images) -> dict[str, Any]:
        """Find groups among photos that nobody labelled, and photos worth a label; needs a key, and changes nothing.

        Args:
            images: As in ``learn``; 1,000 at most.

        Returns:
            The answer of ``POST /v1/suggest``, which numbers photos by their order.

        Raises:
            ImageError: as for ``learn``.
        """
        return self._json("POST", "/v1/suggest", json={"embeddings": self._unlabelled(images)})

    def remove(self, name: str, if_match: str | None = None) -> str:
        """Remove a class from the bank, with the conditions of ``add``, and return the bank's ETag."""
        return _etag(self._send("DELETE", _class_path(name), if_match))

    def photos(self, name: str) -> list[dict[str, Any]]:
        """Return the photos of a class, the oldest first: ``digest``, ``at`` and ``by``."""
        photos: list[dict[str, Any]] = []
        while True:
            params = {"offset": len(photos), "limit": _PAGE}
            page = self._json("GET", _class_path(name) + "/photos", params=params)
            photos += page["photos"]
            if len(photos) >= page["count"] or not page["photos"]:
                return photos

    def remove_photos(self, name: str, digests: Sequence[str], if_match: str | None = None) -> dict[str, Any]:
        """Remove photos of a class for good, by their digests in ``photos``; return the class."""
        return self._json("DELETE", _class_path(name) + "/photos", if_match, json={"digests": list(digests)})

    def move(self, digests: Sequence[str], to: str, if_match: str | None = None) -> dict[str, Any]:
        """Give photos of other classes to a class, by their digests; return the class."""
        return self._json("POST", "/v1/photos/move", if_match, json={"digests": list(digests), "to": to})

    def rename(self, old: str, new: str, *, embed: bool = False, if_match: str | None = None) -> dict[str, Any]:
        """Rename a class, which keeps its embedding unless ``embed`` is true; return the class."""
        return self._json("POST", _class_path(old) + "/rename", if_match, json={"to": new, "embed": embed})

    def set_class(self, name: str, if_match: str | None = None, **settings: Any) -> dict[str, Any]:
        """Set ``aliases``, ``threshold``, ``background`` or ``photos_only`` of a class; return the class."""
        return self._json("PATCH", _class_path(name), if_match, json=settings)

    def history(self) -> list[dict[str, Any]]:
        """Return the latest 1,000 changes of the bank, the latest first, as ``GET /v1/bank/history`` has them."""
        return list(self._json("GET", "/v1/bank/history")["steps"])

    def rollback(self, to: int, if_match: str | None = None) -> str:
        """Go back to the bank as it was after step ``to``, 0 being the beginning; return the bank's ETag."""
        return str(self._json("POST", "/v1/bank/rollback", if_match, json={"to": to})["bank"])

    def undo(self, steps: int = 1, if_match: str | None = None) -> str:
        """Take back the latest changes of the bank; return the bank's ETag."""
        return str(self._json("POST", "/v1/bank/rollback", if_match, json={"steps": steps})["bank"])

    def model(self) -> dict[str, Any]:
        """Return what answers: the bundle, its measured quality, the device, the limits."""
        return self._json("GET", "/v1/model")

    def ready(self) -> bool:
        """Return whether the server has just passed its self-test; raise if it cannot be reached."""
        try:
            self._send("GET", "/readyz", retries=0)
        except ServerError as error:
            if error.status != 503:
                raise
            return False
        return True

    def reload(self) -> str:
        """Have the bundle's path opened again and return the digest of the bundle that answers now; needs a key."""
        return str(self._json("POST", "/v1/reload")["digest"])

    def _send(
        self, method: str, path: str, if_match: str | None = None, retries: int | None = None, **call: Any
    ) -> httpx2.Response:
        """Return the answer to a request, which is retried if the server is busy or not ready.

        Raises:
            ServerError: it was refused for another reason or too often, or there was no answer.
        """
        headers = {} if if_match is None else {"If-Match": if_match if if_match == "*" else f'"{if_match}"'}
        retries = self._retries if retries is None else retries
        while True:
            try:
                response = self._http.request(method, path, headers=headers, **call)
            except self._library.HTTPError as error:
                late = isinstance(error, self._library.TimeoutException)
                reason = str(error).strip() or type(error).__name__
                message = "no answer in time" if late else f"no answer ({reason}); does a server run there?"
                raise ServerError(f"{self.url}: {message}", None, "timeout" if late else "unreachable") from error
            if response.status_code < 300:
                return response
            if response.status_code not in (429, 503) or not retries:
                raise _error(response)
            retries -= 1
            pause = response.headers.get("retry-after", "")
            seconds = min(float(pause) if pause.isdecimal() else 1.0, LONGEST_PAUSE)
            time.sleep(seconds * random.uniform(1, 1.2))  # so that clients spread out

    def _json(self, method: str, path: str, if_match: str | None = None, **call: Any) -> dict[str, Any]:
        response = self._send(method, path, if_match, **call)
        with contextlib.suppress(RecursionError, ValueError):
            if isinstance(content := response.json(), dict):
                return content
        raise ServerError(
            f"expected an answer of sar-serve: {_start(response)}", response.status_code, "unreadable-answer"
        )

    def _embed(self, items: list[str], modality: str) -> Floats:
        body = {"model": "sar-clip", "encoding_format": "base64", "input": items, "modality": modality}

        import numpy as np

        data = self._json("POST", "/v1/embeddings", json=body)["data"]
        return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data], np.float32)

    def _unlabelled(self, images: Images) -> list[str]:
        rows = self.encode([*several(images)])
        if not len(rows):
            raise InputError("expected images")
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]

    def _batches(self, images: Images, batch_size: int = _BATCH) -> Iterator[list[Encoded]]:
        """Yield images, taken as they are needed, in portions that fill a request each."""
        if batch_size < 1:
            raise InputError(f"expected batch_size of 1 or more, got {batch_size}")
        batch, total = list[Encoded](), 0
        for index, source in enumerate(several(images)):
            image = _encoded(source, index)
            size = len(image[1]) if isinstance(image[1], bytes) else 0
            if batch and (len(batch) >= batch_size or total + size > _MOST_BYTES):
                yield batch
                batch, total = [], 0
            batch.append(image)
            total += size
        if batch:
            yield batch

    def _in_parts(self, batch: Sequence[Encoded], send: Callable[[Sequence[Encoded]], T]) -> list[T]:
        """Return the results of requests with all images; one that is too large is halved, down to single images.

        Raises:
            ImageError: an image cannot be read, by the client or the server; the message names it.
        """
        if not batch:
            return []
        for name, data in batch:
            if isinstance(data, ImageError):
                raise ImageError(f"{name}: {data}")
        try:
            return [send(batch)]
        except ServerError as error:
            if match := _POSITION.match(error.detail):
                raise ImageError(f"{batch[int(match[1])][0]}: {error.detail[match.end() :]}") from error
            if error.status != 413 or len(batch) == 1:
                raise
        half = len(batch) // 2
        return self._in_parts(batch[:half], send) + self._in_parts(batch[half:], send)


def _error(response: httpx2.Response) -> ServerError:
    """Return the error of an answer, in the form of any protocol or, if a proxy answered, in none."""
    code, detail = f"http-{response.status_code}", _start(response)
    with contextlib.suppress(AttributeError, KeyError, RecursionError, TypeError, ValueError):
        content = response.json()
        error = content.get("error", content)
        if isinstance(error, str):
            detail = error
        else:
            detail, code = str(error.get("detail") or error["message"]), str(error["code"] or code)
    return ServerError(detail, response.status_code, code, response.headers.get("x-request-id"))


def _start(response: httpx2.Response) -> str:
    """Return the beginning of an answer that cannot be parsed, on one line."""
    text = " ".join(response.content[:400].decode("utf-8", "replace").split())[:200]
    return f"{response.url} answered status {response.status_code} and {text!r}"


def _etag(response: httpx2.Response) -> str:
    return str(response.headers.get("etag", "")).strip('"')


def _class_path(name: str) -> str:
    if not name.strip():
        raise InputError("class name: expected text, got an empty one")
    # a name of dots would mean a folder above
    return "/v1/classes/" + (quote(name, safe="") if name.strip(".") else "%2E" * len(name))


def _phrases(phrases: Sequence[str] | None) -> dict[str, Any]:
    if isinstance(phrases, str):
        raise InputError(f"phrases: expected a list of phrases, got the string {phrases!r}")
    return {} if phrases is None else {"phrases": list(phrases)}


def _joined(parts: Sequence[Floats]) -> Floats:
    """Join arrays of rows; without any, the result is (0, 0), since D is not known."""
    import numpy as np

    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _files(batch: Sequence[Encoded]) -> list[Any]:
    return [("image", ("image", data, "application/octet-stream")) for _, data in batch]


def _texts(batch: Sequence[Encoded]) -> list[str]:
    return [base64.b64encode(data).decode() for _, data in batch if isinstance(data, bytes)]


def _encoded(source: Any, index: int) -> Encoded:
    """Return an image as encoded bytes; PIL images and uint8 arrays become PNG, without loss."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"image[{index}]"
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            return name, bytes(source)
        if hasattr(source, "read") and isinstance(data := source.read(), bytes):
            return name, data
        if not isinstance(source, str | os.PathLike):
            return name, _png(source)
        path = Path(source)  # the messages are those of ``images.load``, which is not imported for a file
        if not path.is_file():
            raise ImageError("not a file" if path.exists() else "no such file")
        return name, path.read_bytes()
    except ImageError as error:
        return name, error
    except OSError as error:
        return name, ImageError(f"cannot be read: {error.strerror}")


def _png(source: Any) -> bytes:
    """Encode upright RGB as the classifier makes it, or RGBA: the bundle decides on the colour under transparency."""
    from PIL import Image, ImageOps

    from sar_infer.images.load import load_rgb

    image = load_rgb(source)  # refuses what the classifier refuses
    if not isinstance(source, Image.Image):
        source = Image.fromarray(source) if source.shape[2:] == (4,) else image
    if source.has_transparency_data and source.mode[0] not in "IF":
        image = ImageOps.exif_transpose(source).convert("RGBA")
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _image_result(name: str, result: Any, spellings: Mapping[str, str]) -> ImageResult:
    """Parse one of ``results`` of ``/v1/classify``; image and classes get the caller's names."""

    def spelt(label: str | None) -> Any:
        return spellings.get(label, label) if label is not None else None

    predictions = tuple(
        Prediction(spelt(p["label"]), p["score"], p["logit"], p["similarity"], p["source"])
        for p in result["predictions"]
    )  # a newer server may send more fields
    labels, why = result.get("label_set"), result.get("explanation")
    if why is not None:
        nearest = tuple((spelt(label), float(cosine)) for label, cosine in why["nearest"])
        why = Explanation(why["margin"], spelt(why["runner_up"]), nearest, spelt(why["background"]))
    label_set = None if labels is None else tuple(map(spelt, labels))
    several = result.get("labels")
    return ImageResult(
        name,
        predictions,
        result["error"],
        result["unknown"],
        result["unknown_threshold"],
        result.get("reason"),
        label_set,
        why,
        None if several is None else tuple(Label(spelt(x["label"]), x["score"], tuple(x["box"])) for x in several),
    )
