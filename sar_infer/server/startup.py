"""The socket and the log of a server, which are there before its larger modules are loaded."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from typing import Literal

from sar_infer.errors import InputError, one_line

_UNREAD_SECONDS = 30
"""A client that reads nothing of its answer for so long is disconnected; else its connection might stay for ever."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not yet listening; port 0 takes a free one.

    Raises:
        InputError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # its connections inherit it
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_SECONDS * 1000)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    return bound


def set_up_logging(form: Literal["text", "json"], access: bool) -> None:
    """Log to stderr, as text or as JSON; of uvicorn only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)-7s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("sar_infer.access").disabled = not access


class _Text(logging.Formatter):
    """Writes a message as one line, whatever names it holds; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return one_line(super().formatMessage(record), None)


class _Json(logging.Formatter):
    """Writes one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({**line, **getattr(record, "fields", {})}, ensure_ascii=False)
