"""The way to a Ray cluster; Ray is imported when it is needed."""

from __future__ import annotations

import logging
import os
import socket

from sar_infer.errors import InputError


def connect(address: str, option: str, missing: str) -> None:
    """Connect to a cluster.

    Args:
        address: ``auto`` = that of this machine or of RAY_ADDRESS, ``local`` = a new one on this machine, HOST:PORT.
        option: What gave the address, for a message.
        missing: The message if Ray is not installed.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(missing) from None
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{option} {address}: no cluster there ({reason}); start one: ray start --head") from None
