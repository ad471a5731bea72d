"""One worker: a process that is started fresh, answers tasks over a socket of its own, and ends with its parent.

Workers share neither queue nor lock, so one that is killed at any point disturbs no other. They are spawned, never
forked: threads of onnxruntime and CUDA do not survive a fork.

``multiprocessing`` hands arguments to a new process through a pipe whose other end the parent holds open too: more than
the pipe holds would wait for ever if the process died before it read them. So a worker starts only with its own socket,
and gets everything else over that. A message is its length and a pickle.
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
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakSet, finalize

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
_LENGTH = struct.Struct("!Q")
_CHUNK = 2**16
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
        self._socket, theirs = socket.socketpair()
        finalize(self, self._socket.close)  # the process of a worker that is dropped ends too
        self._process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            if sys.platform != "win32":
                ensure_running()  # which ``start`` would do itself, and then receive Ctrl-C again
            with waiting(signal.SIGINT):  # so that the process never receives it, not even while Python starts in it
                self._process.start()
            _LIVING.add(self._process)
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Return the identifier of the process."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Return whether the process still runs, as of now, not of the last turn of an event loop."""
        return not wait([self._process.sentinel], 0)

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
        return self._asked(self._load, limit)

    def answer(self, task: tuple[Any, ...]) -> Answer:
        """Return the answer to a task.

        Raises:
            DeathError: the process ended before it answered (``TimeLimitError`` if that took too long).
            Exception: whatever the task raised, with the process's traceback as a note; the process lives on.
        """
        answer: Answer = self._asked(task, self._limit)
        return answer

    async def answer_async(self, task: tuple[Any, ...]) -> Answer:
        """Do as ``answer`` in an event loop.

        Raises:
            DeathError: See ``answer``.
            Exception: See ``answer``.
        """
        loop, message, content = asyncio.get_running_loop(), _message(task), bytearray()
        try:
            self._socket.setblocking(False)
            async with asyncio.timeout(self._limit):
                await loop.sock_sendall(self._socket, message)
                while not _is_whole(content):
                    content += await loop.sock_recv(self._socket, _CHUNK) or _closed()
        except OSError as error:  # ``TimeoutError`` is one
            raise await asyncio.to_thread(self._died, isinstance(error, TimeoutError)) from None
        answer: Answer = _opened(content)
        return answer

    def kill(self) -> None:
        """End the process, whatever it is doing; waiting callers get an error."""
        self._process.kill()

    def dismiss(self) -> None:
        """Let the process end when it has nothing to do; nobody may wait for its answer. See ``ended``."""
        self._socket.close()

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

    def _asked(self, content: Any, limit: float | None) -> Any:
        """Send something to the process, and return what it answers."""
        message = _message(content)
        try:
            self._socket.settimeout(limit)
            self._socket.sendall(message)
            answer = _received(self._socket)
        except OSError as error:
            raise self._died(isinstance(error, TimeoutError)) from None
        return _opened(answer)

    def _died(self, late: bool) -> DeathError:
        """Wait for the process to end, by force if it is late, and return how it did."""
        if late:
            self.kill()
        exit_code = self.ended()
        return TimeLimitError(exit_code) if late or ended_by_deadline(exit_code) else DeathError(exit_code)


def _message(content: Any) -> bytes:
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def _received(connection: socket.socket) -> bytearray:
    """Return a message."""
    content = bytearray()
    while not _is_whole(content):
        content += connection.recv(_CHUNK) or _closed()
    return content


def _is_whole(content: bytearray) -> bool:
    """Return whether a message ends here."""
    return len(content) >= _LENGTH.size and len(content) == _LENGTH.size + _LENGTH.unpack_from(content)[0]


def _closed() -> NoReturn:
    raise ConnectionResetError("the other side has closed the socket")


def _content(message: bytes | bytearray) -> Any:
    return pickle.loads(memoryview(message)[_LENGTH.size :])  # noqa: S301 - of a process that this program started


def _opened(message: bytearray) -> Any:
    """Return what the process sent, or raise it."""
    done, value = _content(message)
    if not done:
        raise value
    return value


def _serve(connection: socket.socket) -> None:
    """Load what the parent sends first, and answer tasks until it closes the socket: the main function of the process.

    The process ignores Ctrl-C: its parent ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # for ``signals.deadline``; a parent may have ignored it
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _end_with_parent()
    with contextlib.suppress(OSError):  # the parent has closed it, or has ended
        message = _received(connection)
        try:
            answer = _content(message)()
        except Exception as error:
            connection.sendall(_failure(error))
            return
        connection.sendall(_message((True, getattr(answer, "begun", None))))
        while True:
            message = _received(connection)
            try:
                reply = _message((True, answer(*_content(message))))
            except Exception as error:
                reply = _failure(error)
            connection.sendall(reply)


def _failure(error: Exception) -> bytes:
    """Return an error as a message, as text if it cannot be sent."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        message = _message((False, error))
        _content(message)
    except Exception:
        return _message((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return message


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
