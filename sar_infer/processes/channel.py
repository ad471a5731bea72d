"""Messages over a pipe from an event loop: no thread waits for a process."""

from __future__ import annotations

import asyncio
import os
import struct

_LENGTH = struct.Struct("!i")
"""How ``multiprocessing`` writes the length of a message of less than 2 GiB; a larger one is not sent."""
_PIECE = 2**16
"""Bytes read at once: the C library takes and returns more than 128 kB from and to the system each time."""


class Channel:
    """This side of a ``multiprocessing`` pipe: one message goes out and one comes back, again and again.

    Args:
        descriptor: Of the pipe; closed by its owner, after ``close``.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._answer: asyncio.Future[memoryview] | None = None
        self._open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    async def exchange(self, message: bytes) -> memoryview:
        """Return the answer to a message, which is sent, as far as the pipe takes it, before this waits for anything.

        If it is cancelled, nothing more can be exchanged.

        Raises:
            OSError: the other side has closed the pipe.
        """
        self._answer = self._loop.create_future()
        self._unsent = memoryview(_LENGTH.pack(len(message)) + message)
        self._received = bytearray()
        self._write()
        if self._unsent:
            self._loop.add_writer(self._descriptor, self._write_rest)
        return await self._answer

    @property
    def open(self) -> bool:
        """Return whether the other side has the pipe open, as of now, not of the last turn of the event loop."""
        if self._open:
            self._read()
        return self._open

    def close(self) -> None:
        """Leave the event loop, if it still runs; who waits for an answer is told."""
        self._open = False
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._fail(ConnectionResetError("the pipe was closed"))

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._unsent = memoryview(b"")
            self._fail(error)

    def _write_rest(self) -> None:
        self._write()
        if not self._unsent:
            self._loop.remove_writer(self._descriptor)

    def _read(self) -> None:
        try:
            piece = os.read(self._descriptor, _PIECE)
            if not piece:
                raise ConnectionResetError("the other side has closed the pipe")
        except BlockingIOError:
            return
        except OSError as error:
            self._loop.remove_reader(self._descriptor)
            self._open = False
            self._fail(error)
            return
        self._received += piece
        if len(self._received) < _LENGTH.size or self._answer is None or self._answer.done():
            return
        (length,) = _LENGTH.unpack_from(self._received)
        if len(self._received) >= _LENGTH.size + length:
            self._answer.set_result(memoryview(self._received)[_LENGTH.size :])

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
