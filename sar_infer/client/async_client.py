"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from sar_infer.client import exchange
from sar_infer.client.answers import ClassList, PhotosAdded
from sar_infer.client.calls import Calls, ClassifyRequest, Mode, PhotosRequest
from sar_infer.client.exchange import Load, Pause, Step, Steps
from sar_infer.client.images import load
from sar_infer.errors import InputError
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Unknown

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.images.load import ImageSource
    from sar_infer.text.names import Classes

T = TypeVar("T")


class AsyncClient:
    """``Client`` for asyncio: the same arguments, methods and errors, and several requests under way at once."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 30, retries: int = 2) -> None:
        self.url = url
        self._http = exchange.library().AsyncClient(**exchange.settings(url, key, timeout))
        self._calls = Calls(retries)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(
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
        """Classify images, as ``Client.classify`` does."""
        options = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return [result async for result in self.stream(images, classes, only, top_k, mode=mode, options=options)]

    async def stream(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        mode: Mode | None = None,
        batch_size: int = 8,
        options: DecisionOptions = PLAIN,
        in_flight: int = 4,
    ) -> AsyncIterator[ImageResult]:
        """Classify any number of images in constant memory.

        Args:
            images: Images, as in ``classify``; taken from the iterable as they are needed.
            classes: As in ``classify``.
            only: As in ``classify``.
            top_k: As in ``classify``.
            mode: As in ``classify``.
            batch_size: Images of a request at most.
            options: What to report beside the classes.
            in_flight: Requests that are under way at once, at most.

        Yields:
            One result for each image, in order.

        Raises:
            InputError: as for ``classify``, or ``in_flight`` is below 1.
        """
        if in_flight < 1:
            raise InputError(f"expected in_flight of 1 or more, got {in_flight}")
        request = ClassifyRequest.of(classes, only, top_k, mode, options)
        under_way: deque[asyncio.Task[list[ImageResult]]] = deque()
        try:
            portions = self._calls.portions(images, batch_size)
            while portion := await self._run(portions.take()):
                if len(under_way) == in_flight:
                    for result in await under_way.popleft():
                        yield result
                under_way.append(asyncio.create_task(self._run(self._calls.classify(portion, request))))
            while under_way:
                for result in await under_way.popleft():
                    yield result
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Return unit rows (N, D), as ``Client.embed_images`` does."""
        return await self._run(self._calls.embed_images(images, batch_size))

    async def embed_names(self, names: Sequence[str]) -> Floats:
        """Return unit rows (N, D), one for each name."""
        return await self._run(self._calls.embed_names(names))

    async def classes(self) -> ClassList:
        """Return the classes of the bank, and its ETag."""
        return await self._run(self._calls.classes())

    async def add_class(self, name: str, phrases: Sequence[str] | None = None, if_match: str | None = None) -> str:
        """Add a class to the bank, as ``Client.add_class`` does, and return the bank's ETag."""
        return await self._run(self._calls.add_class(name, phrases, if_match))

    async def add_photos(
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
        """Add photos to a class, as ``Client.add_photos`` does."""
        request = PhotosRequest(phrases, photos_only, strict)
        return await self._run(self._calls.add_photos(name, images, request, if_match, batch_size))

    async def learn(
        self,
        images: ImageSource | Iterable[ImageSource] = (),
        *,
        folder: str | None = None,
        all_known: bool = False,
        dry_run: bool = False,
        if_match: str | None = None,
    ) -> dict[str, Any]:
        """Learn from photos that nobody labelled, as ``Client.learn`` does."""
        steps = self._calls.learn(images, folder, all_known=all_known, dry_run=dry_run, if_match=if_match)
        return await self._run(steps)

    async def suggest(
        self, images: ImageSource | Iterable[ImageSource] = (), *, folder: str | None = None
    ) -> dict[str, Any]:
        """Find groups among photos that nobody labelled, as ``Client.suggest`` does."""
        return await self._run(self._calls.suggest(images, folder))

    async def remove_class(self, name: str, if_match: str | None = None) -> str:
        """Remove a class from the bank and return the bank's ETag."""
        return await self._run(self._calls.remove_class(name, if_match))

    async def history(self) -> list[dict[str, Any]]:
        """Return the latest 1,000 changes of the bank, the latest first."""
        return await self._run(self._calls.history())

    async def rollback(self, to: int, if_match: str | None = None) -> str:
        """Go back to the bank as it was after step ``to``, and return the bank's ETag."""
        return await self._run(self._calls.rollback(to, if_match))

    async def model(self) -> dict[str, Any]:
        """Return what answers: the bundle, its measured quality, the device, the limits."""
        return await self._run(self._calls.model())

    async def ready(self) -> bool:
        """Return whether the server has just passed its self-test."""
        return await self._run(self._calls.ready())

    async def reload(self) -> str:
        """Have the bundle's path opened again and return the digest of the bundle that answers now."""
        return await self._run(self._calls.reload())

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = await self._do(step)

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Load):
            return await asyncio.to_thread(load, step.source, step.index)
        with exchange.network_errors(self.url):
            return exchange.reply(await self._http.request(**exchange.request(step)))
