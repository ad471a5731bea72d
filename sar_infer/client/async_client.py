"""The client that lets others run while it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from sar_infer.client import connection
from sar_infer.client.answers import ClassList, Reply
from sar_infer.client.calls import Calls, rows
from sar_infer.client.exchange import Call, Pause, Steps
from sar_infer.client.options import Mode, Options
from sar_infer.client.pictures import Picture, Portions, load, several
from sar_infer.errors import InputError
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Unknown

if TYPE_CHECKING:
    from sar_infer.client.calls import Floats
    from sar_infer.images.load import ImageSource
    from sar_infer.text.names import Classes

T = TypeVar("T")


class AsyncClient:
    """``Client`` for asyncio: the same arguments, methods and errors, and many pictures side by side."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 30, retries: int = 2) -> None:
        self.url = url
        self._http = connection.library().AsyncClient(**connection.settings(url, key, timeout))
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
        """Classify pictures, as ``Client.classify`` does."""
        judging = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return [result async for result in self.stream(images, classes, only, top_k, mode=mode, judging=judging)]

    async def stream(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        mode: Mode | None = None,
        batch_size: int = 8,
        judging: DecisionOptions = PLAIN,
        in_flight: int = 4,
    ) -> AsyncIterator[ImageResult]:
        """Classify any number of pictures in constant memory.

        Args:
            images: Pictures, as in ``classify``; taken from the iterable as they are needed.
            classes: As in ``classify``.
            only: As in ``classify``.
            top_k: As in ``classify``.
            mode: As in ``classify``.
            batch_size: Pictures of a request at most.
            judging: What to tell beside the classes.
            in_flight: Requests that are under way at once, at most.

        Yields:
            One result a picture, in order.

        Raises:
            InputError: as ``classify``, or ``in_flight`` is below 1.
        """
        if in_flight < 1:
            raise InputError(f"expected in_flight of 1 or more, got {in_flight}")
        options = Options.of(classes, only, top_k, mode, judging)
        under_way: deque[asyncio.Task[list[ImageResult]]] = deque()
        try:
            async for pictures in self._portions(images, batch_size):
                if len(under_way) == in_flight:
                    for result in await under_way.popleft():
                        yield result
                under_way.append(asyncio.create_task(self._run(self._calls.classify(pictures, options))))
            while under_way:
                for result in await under_way.popleft():
                    yield result
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Unit rows (N, D), as ``Client.embed_images``."""
        parts = [
            await self._run(self._calls.embed_images(pictures)) async for pictures in self._portions(images, batch_size)
        ]
        return rows(parts)

    async def embed_names(self, names: Sequence[str]) -> Floats:
        """Unit rows (N, D), one a name."""
        return await self._run(self._calls.embed_names(names))

    async def classes(self) -> ClassList:
        """The classes of the bank, and its ETag."""
        return await self._run(self._calls.classes())

    async def add_class(self, name: str, phrases: Sequence[str] | None = None, if_match: str | None = None) -> str:
        """Add a class to the bank, as ``Client.add_class``; returns the bank's ETag."""
        return await self._run(self._calls.add_class(name, phrases, if_match))

    async def remove_class(self, name: str, if_match: str | None = None) -> str:
        """Remove a class from the bank; returns the bank's ETag."""
        return await self._run(self._calls.remove_class(name, if_match))

    async def model(self) -> dict[str, Any]:
        """What answers: the bundle, its quality passport, the device, the limits."""
        return await self._run(self._calls.model())

    async def ready(self) -> bool:
        """Whether the server has just classified its probe picture rightly."""
        return await self._run(self._calls.ready())

    async def reload(self) -> str:
        """Have the bundle's path opened again; returns the digest of the bundle that answers now."""
        return await self._run(self._calls.reload())

    async def _portions(
        self, images: ImageSource | Iterable[ImageSource], batch_size: int
    ) -> AsyncIterator[list[Picture]]:
        portions = Portions(self._calls.sizes, batch_size)
        for index, source in enumerate(several(images)):
            if full := portions.add(await asyncio.to_thread(load, source, index)):
                yield full
        if rest := portions.rest():
            yield rest

    async def _run(self, steps: Steps[T]) -> T:
        answer: Reply | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = await self._do(step)

    async def _do(self, step: Call | Pause) -> Reply | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        with connection.told(self.url):
            return connection.reply(await self._http.request(**connection.request(step)))
