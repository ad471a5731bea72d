"""The state that all requests share: the engine that answers, the bank, quotas, readiness and reloads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

from sar_infer.bank import ClassBank
from sar_infer.errors import SarInferError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.banks import Edit, Shared, in_thread, waiting_changes
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.sizing import bodies_limit, memory_limit
from sar_infer.server.problems import CODES, Problem, Quota
from sar_infer.server.settings import Settings

_SELF_TEST_EVERY = 2.0
_SELF_TEST_SECONDS = 10.0
_LARGE = 2**16
_LOOK_EVERY = 1.0
"""Seconds between two looks at the engine and the bank file."""
T = TypeVar("T")
_log = logging.getLogger("sar_infer.server")


class Readiness(NamedTuple):
    """The readiness of the server: the cosine of the last self-test, and the reason if it is not ready."""

    ready: bool
    self_test_cosine: float | None
    reason: str | None = None


class Service:
    """The state of a server, which is made before the server listens and its event loop runs.

    Args:
        settings: Name bundle and bank, which are opened.
        meanwhile: Called in a thread while worker processes start.

    Attributes:
        engine: The engine that answers; a request takes it through ``lease``.
        images: Images inside: being decoded, waiting or running.
        changes: Changes of the bank of ``--bank`` that wait for their turn, and others for a reload.
        body_bytes: Bytes of request bodies that are in memory; ``front`` counts them.
        most_body_bytes: Above this no more is read.
        writing: Held while the bank or the bundle is replaced.
        suggesting: Held while photos are grouped or learned from.
        draining: Set when the server has to stop.

    Raises:
        SarInferError: Bundle or bank cannot be used; the message says why.
    """

    def __init__(self, settings: Settings, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics((*CODES, "cancelled"))
        self.engine = Engine(settings, metrics, meanwhile)
        self.images = Quota(settings.limits.queue, "too many images are waiting")
        self.changes = waiting_changes()
        self.body_bytes, self.most_body_bytes = 0, bodies_limit(settings.limits.body_bytes, memory_limit())
        metrics.inside.set_function(lambda: self.images.held)
        metrics.bank_usable.set_function(lambda: self.engine.banks.main.fault is None)
        metrics.classes.labels("bundle").set_function(lambda: len(self._bank.names) - self._bank.added_count)
        metrics.classes.labels("added").set_function(lambda: self._bank.added_count)
        self.writing = asyncio.Lock()
        self.suggesting = asyncio.Lock()
        self.draining = False
        self._leases: dict[Engine, int] = {}
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._reload = Shared(self._reloaded)
        self._readiness = (float("-inf"), Readiness(False, None, "not tested yet"))
        self._testing = asyncio.Lock()
        self._publish()

    @property
    def _bank(self) -> ClassBank:
        return self.engine.banks.bank

    def close(self) -> None:
        """Stop threads and processes."""
        self.engine.close()

    @contextlib.contextmanager
    def lease(self) -> Iterator[Engine]:
        """Hold the engine, which stays open until the block ends even if a reload replaces it."""
        engine = self.engine
        self._leases[engine] = self._leases.get(engine, 0) + 1
        try:
            yield engine
        finally:
            self._leases[engine] -= 1
            if not self._leases[engine]:
                del self._leases[engine]
                if engine is not self.engine:
                    engine.close()

    async def in_turn(self, size: int, work: Callable[[], T]) -> T:
        """Return the result of work that blocks the event loop, such as parsing a JSON body.

        Large bodies take turns, with a pause after each as long as it took: other requests wait for one of them at
        most, and only one is parsed at a time.

        Args:
            size: Bytes of the body.
            work: Its exceptions are passed on.
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
        """Run the self-test image through the model, ahead of the queue and at most every two seconds."""
        async with self._testing:
            at, readiness = self._readiness
            if time.monotonic() - at > _SELF_TEST_EVERY:
                cosine, reason = None, None
                with self.lease() as engine:
                    try:
                        async with asyncio.timeout(_SELF_TEST_SECONDS):
                            cosine = await engine.self_test()
                    except TimeoutError:
                        reason = f"the self-test took more than {_SELF_TEST_SECONDS:g} s"
                    except Problem as problem:
                        reason = problem.detail
                    except Exception as error:  # whatever it is, the model does not answer
                        _log.exception("the self-test failed")
                        reason = f"the self-test failed: {error}"
                if cosine is not None and not cosine >= engine.classifier.self_test.least:
                    cosine = cosine if math.isfinite(cosine) else None
                    reason = "the self-test image gives another vector than at export"
                readiness = Readiness(reason is None, cosine, reason)
                self._readiness = (time.monotonic(), readiness)
                self.metrics.ready.set(readiness.ready)
        return Readiness(False, readiness.self_test_cosine, "shutting down") if self.draining else readiness

    async def reload(self) -> None:
        """Open the bundle's path again while the present engine answers, and replace that if all is well.

        Calls that come together share a reload that begins after all of them.

        Raises:
            SarInferError: the bundle or the bank is refused; nothing has changed.
        """
        await self.finished(self._reload())

    async def _reloaded(self) -> None:
        async with self.writing:
            old = self.engine
            try:
                engine = await in_thread(lambda: Engine(self.settings, self.metrics))
            except BaseException as error:
                self.metrics.reloads.labels("refused").inc()
                foreseen = self.draining or isinstance(error, SarInferError)
                _log.error("reload refused, the old bundle stays: %s", error, exc_info=not foreseen)
                raise
            self.engine = engine
            if old not in self._leases:
                old.close()
            self._readiness = (float("-inf"), Readiness(False, None))
            self.metrics.reloads.labels("done").inc()
            self._publish()
            _log.info("bundle %s answers now", engine.bundle.manifest.digest[:12])

    async def change(self, edit: Edit[T], bank: str | None) -> tuple[ClassBank, T]:
        """Change a bank in a thread, one change at a time; once begun it is finished, even if its client leaves.

        Args:
            edit: Returns the changed bank and what else the caller wants. Until it has ended, neither the bank of
                ``--bank`` nor the engine is replaced.
            bank: Name of a bank of ``--banks``; None is that of ``--bank``.

        Raises:
            Problem: ``overloaded``, if too many wait for their turn; or raised by ``Banks.change``.
        """
        with self.changes.hold(1):
            await self.writing.acquire()
        if bank is not None:
            self.writing.release()  # it had to wait for a reload only

        async def changed() -> tuple[ClassBank, T]:
            try:
                return await self.engine.banks.change(bank, edit)
            finally:
                if bank is None:
                    self.writing.release()
                    await self.engine.banks.look()

        return await self.finished(changed())

    async def alone(self, work: Callable[[], T]) -> T:
        """Return the result of work on many photos, one at a time; once begun it is waited for, even by no client."""
        await self.suggesting.acquire()

        async def done() -> T:
            try:
                return await in_thread(work)
            finally:
                self.suggesting.release()

        return await self.finished(done())

    async def finished(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """Return the result of work that continues even if the request that asked for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def watch(self) -> None:
        """Look after the engine, and take up what others write to the bank file, as ``sar-bank`` does."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                self.engine.workers.tend()
                await self.engine.banks.look()
            except Exception:  # the next look may go well
                _log.exception("engine and bank file were not looked at")

    async def unfinished(self, seconds: float) -> None:
        """Wait for changes and reloads that have begun, at most this many seconds."""
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=max(0, seconds))

    def _publish(self) -> None:
        manifest = self.engine.bundle.manifest
        self.metrics.ready.set(1)  # ``Engine`` has run the self-test
        self.metrics.provider.clear()
        self.metrics.provider.labels(self.settings.device, self.engine.provider).set(1)
        self.metrics.model.info({"digest": manifest.digest, "backbone": manifest.backbone, "method": manifest.method})
