"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from sar_infer.client import exchange
from sar_infer.client.answers import ClassList, PhotosAdded
from sar_infer.client.calls import Calls, ClassifyRequest, Mode, PhotosRequest
from sar_infer.client.exchange import Load, Pause, Step, Steps
from sar_infer.client.images import load
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Unknown

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.images.load import ImageSource
    from sar_infer.text.names import Classes

T = TypeVar("T")


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

    Raises:
        InputError: the URL or key cannot be used, or httpx2 is not installed.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 30, retries: int = 2) -> None:
        self.url = url
        self._http = exchange.library().Client(**exchange.settings(url, key, timeout))
        self._calls = Calls(retries)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        unknown: Unknown | None = None,
        explain: bool = False,
        coverage: float | None = None,
        mode: Mode | None = None,
    ) -> list[ImageResult]:
        """Classify images, as ``Classifier.classify`` does; many images are sent in several requests.

        Args:
            images: One image or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names to add to the bank's, or phrases by name.
            only: Choose from ``classes`` alone.
            top_k: How many classes to return for each image, at most.
            unknown: Report whether the image shows none of the classes, as ``Classifier.classify`` does.
            explain: Report the reasons for the best class.
            coverage: Report the set of classes that includes the true one with this probability.
            mode: ``bank``, ``extend`` or ``only``, the server's own word for what to choose from.

        Returns:
            One result for each image, in order; ``error`` is set if client or server could not read the image.

        Raises:
            InputError: ``classes`` is a string, or ``only`` and ``mode`` disagree.
        """
        options = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return list(self.stream(images, classes, only, top_k, mode=mode, options=options))

    def stream(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        mode: Mode | None = None,
        batch_size: int = 16,
        options: DecisionOptions = PLAIN,
    ) -> Iterator[ImageResult]:
        """Classify any number of images in constant memory, at most ``batch_size`` a request, one after the other."""
        request = ClassifyRequest.of(classes, only, top_k, mode, options)
        portions = self._calls.portions(images, batch_size)
        while portion := self._run(portions.take()):
            yield from self._run(self._calls.classify(portion, request))

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Return unit rows (N, D), one for each image.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
        """
        return self._run(self._calls.embed_images(images, batch_size))

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Return unit rows (N, D), one for each name, from the server's name encoder."""
        return self._run(self._calls.embed_names(names))

    def classes(self) -> ClassList:
        """Return the classes of the bank, and its ETag."""
        return self._run(self._calls.classes())

    def add_class(self, name: str, phrases: Sequence[str] | None = None, if_match: str | None = None) -> str:
        """Add a class to the bank, or give one other phrases; needs a key, and a server with ``--bank``.

        Args:
            name: Name of the class.
            phrases: Texts to encode and average instead of the name.
            if_match: The ETag that the bank must still have, else the change is refused (412).

        Returns:
            The bank's ETag after the change.
        """
        return self._run(self._calls.add_class(name, phrases, if_match))

    def add_photos(
        self,
        name: str,
        images: ImageSource | Iterable[ImageSource],
        phrases: Sequence[str] | None = None,
        *,
        photos_only: bool = False,
        strict: bool = False,
        if_match: str | None = None,
        batch_size: int = 16,
    ) -> PhotosAdded:
        """Add photos to a class, which is made if it is not there; many are sent in several requests.

        Needs a key, and a server with ``--bank``. Photos that are counted already are left out, so that the call can be
        repeated.

        Args:
            name: Name of the class.
            images: One image or several, as in ``classify``.
            phrases: Texts to encode and average instead of the name; None leaves a class that is there as it is.
            photos_only: The name means nothing (``SKU-12345``), only photos say what the class is.
            strict: Refuse a request (409) if one of its photos, or the class with them, is odd.
            if_match: The ETag that the bank must still have, else the change is refused (412).
            batch_size: Images in a request, at most.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
            InputError: there is no image, or ``phrases`` is a single string.
        """
        request = PhotosRequest(phrases, photos_only, strict)
        return self._run(self._calls.add_photos(name, images, request, if_match, batch_size))

    def learn(
        self,
        images: ImageSource | Iterable[ImageSource] = (),
        *,
        folder: str | None = None,
        all_known: bool = False,
        dry_run: bool = False,
        if_match: str | None = None,
    ) -> dict[str, Any]:
        """Learn from photos that nobody labelled, in place of what was learned before; needs a key and ``--bank``.

        Args:
            images: One image or several, as in ``classify``: they are encoded in several requests, and learned from in
                one.
            folder: In place of images: a folder below the server's ``--photos``; the call waits as long as that takes.
            all_known: Every photo is of one of the bank's classes: learn more.
            dry_run: Change nothing.
            if_match: The ETag that the bank must still have, else the change is refused (412).

        Returns:
            The report, as ``POST /v1/learn`` has it, with the names of images (paths) as keys.

        Raises:
            ImageError: client or server cannot read an image; the message names it.
            InputError: there is no image, or there are images and a folder.
        """
        steps = self._calls.learn(images, folder, all_known=all_known, dry_run=dry_run, if_match=if_match)
        return self._run(steps)

    def suggest(self, images: ImageSource | Iterable[ImageSource] = (), *, folder: str | None = None) -> dict[str, Any]:
        """Find groups among photos that nobody labelled, and photos worth a label; needs a key, and changes nothing.

        Args:
            images: As in ``learn``; 1,000 at most.
            folder: As in ``learn``.

        Returns:
            The answer of ``POST /v1/suggest``, with the names of images (paths) in place of numbers.

        Raises:
            ImageError: as for ``learn``.
            InputError: as for ``learn``.
        """
        return self._run(self._calls.suggest(images, folder))

    def remove_class(self, name: str, if_match: str | None = None) -> str:
        """Remove a class from the bank, with the conditions of ``add_class``, and return the bank's ETag."""
        return self._run(self._calls.remove_class(name, if_match))

    def history(self) -> list[dict[str, Any]]:
        """Return the latest 1,000 changes of the bank, the latest first, as ``GET /v1/bank/history`` has them."""
        return self._run(self._calls.history())

    def rollback(self, to: int, if_match: str | None = None) -> str:
        """Go back to the bank as it was after step ``to``, 0 being the beginning; return the bank's ETag."""
        return self._run(self._calls.rollback(to, if_match))

    def model(self) -> dict[str, Any]:
        """Return what answers: the bundle, its measured quality, the device, the limits."""
        return self._run(self._calls.model())

    def ready(self) -> bool:
        """Return whether the server has just passed its self-test; raise if it cannot be reached."""
        return self._run(self._calls.ready())

    def reload(self) -> str:
        """Have the bundle's path opened again and return the digest of the bundle that answers now; needs a key."""
        return self._run(self._calls.reload())

    def _run(self, steps: Steps[T]) -> T:
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = self._do(step)

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Load):
            return load(step.source, step.index)
        with exchange.network_errors(self.url):
            return exchange.reply(self._http.request(**exchange.request(step)))
