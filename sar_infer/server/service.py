"""What all requests share: the engine that answers now, the bank, admission, readiness and the exchange of bundles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sar_infer.encoders.waiting import in_background
from sar_infer.server.bank.store import BankStore
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.available import bodies_limit
from sar_infer.server.model.engine import Engine
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Settings

_PROBE_EVERY = 2.0
_PROBE_SECONDS = 10.0
_MOST_WRITERS = 64
_LARGE = 2**16
T = TypeVar("T")
_log = logging.getLogger("sar_infer.server")


@dataclass(frozen=True)
class Readiness:
    """Whether the model answers rightly, and what its probe gave."""

    ready: bool
    probe_cosine: float | None
    reason: str | None = None


class Service:
    """The state of a server; everything but ``open`` runs on its event loop.

    Attributes:
        engine: Answers now; take it through ``lease`` for the length of a request.
        store: The bank, with what was added at run time.
        writing: Held while the bank or the bundle is exchanged.
        draining: Set when the server is told to stop.
        held_bytes: Of all request bodies that are in memory; ``middleware`` counts them.
        most_held: Bytes of bodies, above which no more is taken in.
    """

    def __init__(self, settings: Settings, engine: Engine, store: BankStore, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.engine = engine
        self.store = store
        self.writing = asyncio.Lock()
        self.draining = False
        self.held_bytes = 0
        self.most_held = bodies_limit(settings.limits.body_bytes)
        self._inside = 0
        self._seconds_each = 0.05
        self._leases: dict[Engine, int] = {}
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._writers = 0
        self._turn = asyncio.Lock()
        self._readiness = (float("-inf"), Readiness(False, None, "not asked yet"))
        self._probing = asyncio.Lock()
        self._publish()

    @classmethod
    def open(cls, settings: Settings) -> Service:
        """Open bundle and bank; nothing listens before this has succeeded.

        Raises:
            SarInferError: either cannot be used; the message says why.
        """
        metrics = Metrics()
        engine = Engine.open(settings, metrics)
        store = BankStore.open(settings.state, engine.bundle, engine.classifier.embed_phrases)
        return cls(settings, engine, store, metrics)

    def close(self) -> None:
        """Let go of threads and of the state folder."""
        _retire(self.engine)
        self.store.close()

    @contextlib.contextmanager
    def lease(self) -> Iterator[Engine]:
        """The engine, kept open until the block ends even if another takes its place meanwhile."""
        engine = self.engine
        self._leases[engine] = self._leases.get(engine, 0) + 1
        try:
            yield engine
        finally:
            self._leases[engine] -= 1
            if not self._leases[engine]:
                del self._leases[engine]
                if engine is not self.engine:
                    _retire(engine)

    @property
    def full(self) -> bool:
        """No further picture is let in."""
        return self._inside >= self.settings.limits.queue

    def overloaded(self) -> Problem:
        """The answer to those who are not let in."""
        return Problem("overloaded", "too many pictures are waiting; try again", self._inside * self._seconds_each)

    @contextlib.contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Let pictures in for the length of a block.

        Raises:
            Problem: ``overloaded``; the first picture of an idle server is always let in.
        """
        if self._inside and self._inside + count > self.settings.limits.queue:
            raise self.overloaded()
        self._inside += count
        self.metrics.inside.set(self._inside)
        start = time.perf_counter()
        try:
            yield
        finally:
            each = (time.perf_counter() - start) / self._inside
            self._seconds_each += 0.1 * (each - self._seconds_each)
            self._inside -= count
            self.metrics.inside.set(self._inside)

    async def in_turn(self, size: int, work: Callable[[], T]) -> T:
        """Return what work on a body gives that holds the event loop, such as to parse its JSON.

        Large bodies take turns, with a pause after each as long as it took: whatever else waits for the event loop
        waits for one of them, and what is parsed is in memory once.

        Args:
            size: Bytes of the body.
            work: Raises what this raises.
        """
        if size < _LARGE:
            return work()
        async with self._turn:
            start = time.perf_counter()
            try:
                return work()
            finally:
                await asyncio.sleep(time.perf_counter() - start)

    async def readiness(self) -> Readiness:
        """Run the probe picture through the model, at most every two seconds, before what is queued already."""
        async with self._probing:
            at, known = self._readiness
            if time.monotonic() - at > _PROBE_EVERY:
                known = await self._probe()
                self._readiness = (time.monotonic(), known)
                self.metrics.ready.set(known.ready)
        return Readiness(False, known.probe_cosine, "shutting down") if self.draining else known

    async def reload(self) -> Engine:
        """Open the bundle's path again beside the engine that answers, and exchange them if all is well.

        Raises:
            SarInferError: the bundle or the bank is refused; nothing has changed.
            Problem: ``overloaded``, where images have had all memory for too long.
        """
        return await self._to_its_end(self._reload())

    async def change(self, change: Callable[[], T]) -> T:
        """Make a change of the bank in a thread, when its turn comes; once begun it ends, whoever has gone meanwhile.

        Raises:
            Problem: ``overloaded``, where too many wait for their turn.
            ChangeRefusedError: what ``change`` raises.
        """
        if self._writers >= _MOST_WRITERS:
            raise Problem("overloaded", "too many changes are waiting; try again", 1)
        self._writers += 1
        try:
            await self.writing.acquire()
        finally:
            self._writers -= 1
        return await self._to_its_end(self._changed(change))

    async def unfinished(self, seconds: float) -> None:
        """Wait for changes and reloads that have begun, for so many seconds at most."""
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=max(0, seconds))

    async def _changed(self, change: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(in_background(change))
        finally:
            self.writing.release()
            self.bank_changed()

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that goes on if whoever asked for it goes away."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _reload(self) -> Engine:
        async with self.writing:
            old = self.engine
            needed = 2 * sum(file.size for file in old.bundle.manifest.files.values())
            try:
                async with old.memory.share(0, needed):  # for a moment both models are in memory
                    engine, store = await asyncio.wrap_future(in_background(self._successors))
            except BaseException as error:
                self.metrics.reloads.labels("refused").inc()
                _log.error("reload refused, the old bundle stays: %s", error)
                raise
            self.engine, self.store = engine, store
            if old not in self._leases:
                _retire(old)
            self._readiness = (float("-inf"), Readiness(False, None))
            self.metrics.reloads.labels("done").inc()
            self._publish()
            _log.info("bundle %s answers now", engine.bundle.manifest.digest[:12])
            return engine

    def _successors(self) -> tuple[Engine, BankStore]:
        engine = Engine.open(self.settings, self.metrics, self.engine)
        try:
            return engine, self.store.rebased(engine.bundle, engine.classifier.embed_phrases)
        except BaseException:
            _retire(engine)
            raise

    def bank_changed(self) -> None:
        """Tell the metrics."""
        snapshot = self.store.snapshot
        self.metrics.classes.labels("bundle").set(len(snapshot.bank.names) - snapshot.added)
        self.metrics.classes.labels("added").set(snapshot.added)

    async def _probe(self) -> Readiness:
        with self.lease() as engine:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    cosine = await engine.self_test()
            except TimeoutError:
                return Readiness(False, None, f"the probe took more than {_PROBE_SECONDS:g} s")
            except Exception as error:  # whatever it is, the model does not answer
                _log.exception("the probe failed")
                return Readiness(False, None, f"the probe failed: {error}")
        if not cosine >= engine.least_cosine:
            return Readiness(
                False,
                cosine if math.isfinite(cosine) else None,
                "the probe picture gives another vector than at export",
            )
        return Readiness(True, cosine)

    def _publish(self) -> None:
        manifest = self.engine.bundle.manifest
        self.metrics.ready.set(1)  # ``Engine.open`` has run the probe
        self.metrics.provider.clear()
        self.metrics.provider.labels(self.settings.device, self.engine.provider).set(1)
        self.metrics.model.info({"digest": manifest.digest, "backbone": manifest.backbone, "method": manifest.method})
        self.bank_changed()


def _retire(engine: Engine) -> None:
    """Close an engine whose requests have ended, and stop what they may have left running."""
    engine.classifier.stop()
    engine.close()
