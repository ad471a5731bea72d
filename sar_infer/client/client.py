"""The client that waits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from sar_infer.client import connection
from sar_infer.client.answers import ClassList, Reply
from sar_infer.client.calls import Calls, rows
from sar_infer.client.exchange import Call, Pause, Steps
from sar_infer.client.options import Mode, Options
from sar_infer.client.pictures import Picture, Portions, load, several
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Unknown

if TYPE_CHECKING:
    from sar_infer.client.calls import Floats
    from sar_infer.images.load import ImageSource
    from sar_infer.text.names import Classes

T = TypeVar("T")


class Client:
    """Asks a ``sar-serve``; safe to share between threads.

    Every method raises ``ServerError`` where the server refuses, cannot be reached or takes too long; a call that is
    refused because the server is busy (429) or not ready (503) is made again first, after the pause that it asks for.

    Args:
        url: The server's address, with a path where a proxy gives it one.
        key: The server's key, where it has one.
        timeout: Seconds without a sign of life, for connecting, sending and answering each.
        retries: How often a call is made again.

    Raises:
        InputError: the URL or key cannot be used, or httpx2 is not installed.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 30, retries: int = 2) -> None:
        self.url = url
        self._http = connection.library().Client(**connection.settings(url, key, timeout))
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
        """Classify pictures, as ``Classifier.classify`` does; many pictures are sent in several requests.

        Args:
            images: One picture or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names to add to the bank's, or phrases by name.
            only: Choose from ``classes`` alone.
            top_k: How many classes to return for each picture, at most.
            unknown: Say whether the best class is to be believed, by its ``score`` or by the ``energy``.
            explain: Give the reasons for the best class.
            coverage: Give the set of classes that holds the true one with this probability.
            mode: ``bank``, ``extend`` or ``only``, the server's own word for what to choose from.

        Returns:
            One result a picture, in order; one that could not be read, here or there, has ``error`` set.

        Raises:
            InputError: ``classes`` is a string, or ``only`` and ``mode`` disagree.
        """
        judging = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return list(self.stream(images, classes, only, top_k, mode=mode, judging=judging))

    def stream(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        mode: Mode | None = None,
        batch_size: int = 16,
        judging: DecisionOptions = PLAIN,
    ) -> Iterator[ImageResult]:
        """Classify any number of pictures in constant memory, at most ``batch_size`` a request, one after the other."""
        options = Options.of(classes, only, top_k, mode, judging)
        for pictures in self._portions(images, batch_size):
            yield from self._run(self._calls.classify(pictures, options))

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Unit rows (N, D), one a picture.

        Raises:
            ImageError: a picture cannot be read, here or there; names it.
        """
        parts = [self._run(self._calls.embed_images(pictures)) for pictures in self._portions(images, batch_size)]
        return rows(parts)

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Unit rows (N, D), one a name, from the server's name encoder."""
        return self._run(self._calls.embed_names(names))

    def classes(self) -> ClassList:
        """The classes of the bank, and its ETag."""
        return self._run(self._calls.classes())

    def add_class(self, name: str, phrases: Sequence[str] | None = None, if_match: str | None = None) -> str:
        """Add a class to the bank, or give one other phrases; needs a key, and a server with ``--state``.

        Args:
            name: Its name.
            phrases: What is encoded and averaged in place of the name.
            if_match: The ETag that the bank must still have, else the change is refused (412).

        Returns:
            The bank's ETag after the change.
        """
        return self._run(self._calls.add_class(name, phrases, if_match))

    def remove_class(self, name: str, if_match: str | None = None) -> str:
        """Remove a class from the bank, as ``add_class`` adds one; returns the bank's ETag."""
        return self._run(self._calls.remove_class(name, if_match))

    def model(self) -> dict[str, Any]:
        """What answers: the bundle, its quality passport, the device, the limits."""
        return self._run(self._calls.model())

    def ready(self) -> bool:
        """Whether the server has just classified its probe picture rightly; a server that cannot be reached raises."""
        return self._run(self._calls.ready())

    def reload(self) -> str:
        """Have the bundle's path opened again; returns the digest of the bundle that answers now. Needs a key."""
        return self._run(self._calls.reload())

    def _portions(self, images: ImageSource | Iterable[ImageSource], batch_size: int) -> Iterator[list[Picture]]:
        portions = Portions(self._calls.sizes, batch_size)
        for index, source in enumerate(several(images)):
            if full := portions.add(load(source, index)):
                yield full
        if rest := portions.rest():
            yield rest

    def _run(self, steps: Steps[T]) -> T:
        answer: Reply | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = self._do(step)

    def _do(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        with connection.told(self.url):
            return connection.reply(self._http.request(**connection.request(step)))
