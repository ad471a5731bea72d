"""One worker: a process that is started fresh, answers tasks over a pipe of its own, and ends with its parent.

Workers share neither queue nor lock, so one that is killed at any point disturbs no other. They are spawned, never
forked: threads of onnxruntime and CUDA do not survive a fork.

``multiprocessing`` hands arguments to a new process through a pipe whose other end the parent holds open too: more than
the pipe holds would wait for ever if the process died before it read them. So a worker starts only with its own pipe,
and gets everything else over that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.resource_tracker import ensure_running
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from sar_infer.processes.signals import ended_by_deadline, waiting

Answer = TypeVar("Answer")
Load = Callable[[], Callable[..., Answer]]
"""Called in the new process; what it returns is called with each task."""
_SPAWN = get_context("spawn")
_GRACE = 5.0
"""Seconds for a process to end by itself."""
_REAPED_EVERY = 0.001
"""Seconds between two looks at an exit code. Whenever ``multiprocessing`` starts a process it asks for the codes of
all others, and the thread that was given one may not have noted it yet."""
_LENGTH = struct.Struct("!i")
"""How ``multiprocessing`` writes the length of a message of less than 2 GiB; a larger one is not sent."""
_PIECE = 2**16
"""Bytes read at once: the C library takes and returns more than 128 kB from and to the system each time."""
_LIVING: WeakSet[SpawnProcess] = WeakSet()
"""Processes that were started here, as long as anything refers to them."""


def _kill_all() -> None:
    for process in list(_LIVING):
        process.kill()


Finalize(None, _kill_all, exitpriority=0)
"""At exit, before ``multiprocessing`` sends SIGTERM to its children and waits for them: a worker may ignore that."""


class DeathError(RuntimeError):
    """A process ended before it answered: it crashed, or was killed.

    Attributes:
        exit_code: Of the process; negative if a signal ended it.
    """

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"the process died (exit code {self.exit_code})"


class TimeLimitError(DeathError):
    """A process was ended because a task took too long."""

    def __str__(self) -> str:
        return "the process was ended: it took too long"


class Worker(Generic[Answer]):
    """The parent's side of one process; one thread, or one coroutine, at a time may ask it.

    Args:
        load: Prepares the process; sent to it by ``loaded``.
        limit: The most seconds from a task to its answer.

    Raises:
        OSError: the system starts no further process.
    """

    def __init__(self, load: Load[Answer], limit: float | None = None) -> None:
        self._load, self._limit = load, limit
        self._loop: asyncio.AbstractEventLoop | None = None  # once it has been asked from one
        self._open, self._writing = True, False
        self._unsent, self._received = memoryview(b""), bytearray()
        self._reply: asyncio.Future[memoryview] | None = None
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            if sys.platform != "win32":
                ensure_running()  # which ``start`` would do itself, and then receive Ctrl-C again
            with waiting(signal.SIGINT):  # so that the process never receives it, not even while Python starts in it
                self._process.start()
            _LIVING.add(self._process)
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Return the identifier of the process."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Return whether the process still runs, as of now, not of the last turn of the event loop."""
        if self._loop is None:
            return not wait([self._process.sentinel], 0)
        if self._open:
            self._read()
        return self._open

    @property
    def stopped(self) -> bool:
        """Return whether the process is stopped, as by SIGSTOP; elsewhere than on Linux nobody can tell."""
        with contextlib.suppress(OSError, IndexError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def loaded(self, limit: float) -> Any:
        """Send ``load`` to the process, and wait until it has returned there; either takes ``limit`` seconds at most.

        Returns:
            The attribute ``begun`` of what ``load`` has returned, or None.

        Raises:
            DeathError: the process ended meanwhile (``TimeLimitError`` if it was given no more time).
            Exception: whatever ``load`` raised.
        """
        _bound(self._pipe, limit)
        self._send(self._load)
        begun = self._receive(limit)
        _bound(self._pipe, self._limit)
        return begun

    def answer(self, task: tuple[Any, ...]) -> Answer:
        """Return the answer to a task.

        Raises:
            DeathError: the process ended before it answered (``TimeLimitError`` if that took too long).
            Exception: whatever the task raised, with the process's traceback as a note; the process lives on.
        """
        self._send(task)
        answer: Answer = self._receive(self._limit)
        return answer

    async def answer_async(self, task: tuple[Any, ...]) -> Answer:
        """Do as ``answer`` in an event loop; from then on ``answer`` itself cannot be called.

        Raises:
            DeathError: See ``answer``.
            Exception: See ``answer``.
        """
        if sys.platform == "win32":  # its event loop cannot wait for a pipe
            return await asyncio.to_thread(self.answer, task)
        pipe = self._pipe.fileno()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            os.set_blocking(pipe, False)
            self._loop.add_reader(pipe, self._read)
        message = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
        self._reply, self._received = self._loop.create_future(), bytearray()
        self._unsent = memoryview(_LENGTH.pack(len(message)) + message)
        self._write()  # as far as the pipe takes it, before this waits for anything
        if self._unsent:
            self._writing = True
            self._loop.add_writer(pipe, self._write)
        try:
            async with asyncio.timeout(self._limit):
                content = await self._reply
        except OSError as error:  # ``TimeoutError`` is one
            self.dismiss()
            self._reply = None  # whose error leads back here: a cycle, in which the process's pipes would stay open
            raise await asyncio.to_thread(self._died, isinstance(error, TimeoutError)) from None
        answer: Answer = _opened(content)
        return answer

    def kill(self) -> None:
        """End the process, whatever it is doing; waiting callers get an error."""
        self._process.kill()

    def dismiss(self) -> None:
        """Let the process end when it has nothing to do; nobody may wait for its answer. See ``ended``."""
        if self._loop is not None and not self._pipe.closed and not self._loop.is_closed():
            self._lose(ConnectionResetError("the pipe was closed"))
        self._pipe.close()

    def ended(self) -> int | None:
        """Dismiss the process, wait for it to end, after a few seconds by force, and return its exit code.

        None, if the system does not end it (it may wait for a disk that is gone).
        """
        self.dismiss()
        if not wait([self._process.sentinel], _GRACE):
            self._process.kill()
        self._process.join(_GRACE)
        end = time.monotonic() + _GRACE
        while (exit_code := self._process.exitcode) is None and time.monotonic() < end:
            time.sleep(_REAPED_EVERY)
        return exit_code

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._pipe.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if self._writing and self._loop is not None and not self._unsent:
            self._writing = False
            self._loop.remove_writer(self._pipe.fileno())

    def _read(self) -> None:
        try:
            piece = os.read(self._pipe.fileno(), _PIECE)
            if not piece:
                raise ConnectionResetError("the other side has closed the pipe")
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        self._received += piece
        if len(self._received) < _LENGTH.size or self._reply is None or self._reply.done():
            return
        (length,) = _LENGTH.unpack_from(self._received)
        if len(self._received) >= _LENGTH.size + length:
            self._reply.set_result(memoryview(self._received)[_LENGTH.size :])

    def _lose(self, error: OSError) -> None:
        """Leave the event loop, and tell who waits for an answer."""
        self._open, self._unsent = False, memoryview(b"")
        if self._loop is not None:
            self._loop.remove_reader(self._pipe.fileno())
            self._loop.remove_writer(self._pipe.fileno())
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)

    def _send(self, message: Any) -> None:
        with ForkingPickler.dumps(message) as content:
            try:
                self._pipe.send_bytes(content)
            except OSError as error:
                # Its frames hold views of the message, and Python 3.13 complains on stderr of a view that is left.
                traceback.clear_frames(error.__traceback__)
                raise self._died(isinstance(error, BlockingIOError)) from None

    def _receive(self, limit: float | None) -> Any:
        try:
            if not self._pipe.poll(limit):
                raise BlockingIOError
            content = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died(isinstance(error, BlockingIOError)) from None
        return _opened(content)

    def _died(self, late: bool) -> DeathError:
        """Wait for the process to end, by force if it is late, and return how it did."""
        if late:
            self.kill()
        exit_code = self.ended()
        return TimeLimitError(exit_code) if late or ended_by_deadline(exit_code) else DeathError(exit_code)


def _opened(content: bytes | memoryview) -> Any:
    """Return what the process sent, or raise it."""
    done, value = ForkingPickler.loads(content)
    if not done:
        raise value
    return value


def _bound(pipe: Connection, seconds: float | None) -> None:
    """Let the kernel end a transfer with ``BlockingIOError`` if the other side stops in the middle; None: never."""
    if sys.platform == "win32":
        return
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        limit = struct.pack("@ll", int(seconds or 0), int((seconds or 0) % 1 * 1e6))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _serve(pipe: Connection) -> None:
    """Load what the parent sends first, and answer tasks until it closes the pipe: the main function of the process.

    The process ignores Ctrl-C: its parent ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # for ``signals.deadline``; a parent may have ignored it
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _end_with_parent()
    try:
        content = pipe.recv_bytes()
    except (EOFError, OSError):  # the parent has closed it, or has ended
        return
    try:
        answer = ForkingPickler.loads(content)()
    except Exception as error:
        pipe.send_bytes(_failure(error))
        return
    del content
    pipe.send((True, getattr(answer, "begun", None)))
    with contextlib.suppress(EOFError, OSError):  # the parent has closed it, or has ended
        while True:
            content = pipe.recv_bytes()
            try:
                reply = ForkingPickler.dumps((True, answer(*ForkingPickler.loads(content))))
            except Exception as error:
                reply = _failure(error)
            pipe.send_bytes(reply)


def _failure(error: Exception) -> Any:
    """Return an error as bytes, as text if it cannot be sent."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        content = ForkingPickler.dumps((False, error))
        ForkingPickler.loads(content)
    except Exception:
        return ForkingPickler.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return content


def _end_with_parent() -> None:
    """End this process when its parent ends, even if that is killed: the one guard against orphans.

    A thread waits for the parent. On Linux the kernel does so too, by a signal when the pipe that the parent holds is
    closed: a decoder that hangs may never let the thread have Python's lock.
    """
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # a sandbox may not allow it
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def leave(seconds: float | None = None) -> None:
        if wait([parent.sentinel], seconds):
            os._exit(1)

    leave(0)  # if it ended before
    threading.Thread(target=leave, daemon=True).start()
