"""What the test of the image needs of a container tool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

STOP_SECONDS = 30
PULL_SECONDS = 120


class UnavailableError(Exception):
    """Something that the machine lacks: nothing was tested."""


@dataclass(frozen=True)
class Config:
    """What an image declares."""

    user: str
    entrypoint: list[str]
    environment: dict[str, str]
    labels: dict[str, str]
    healthcheck: list[str]
    stop_signal: str
    ports: list[str]

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Config:
        """From the JSON that all three tools print."""
        return cls(
            raw.get("User") or "",
            raw.get("Entrypoint") or [],
            dict(item.split("=", 1) for item in raw.get("Env") or []),
            raw.get("Labels") or {},
            (raw.get("Healthcheck") or {}).get("Test") or [],
            raw.get("StopSignal") or "",
            sorted(raw.get("ExposedPorts") or {}),
        )


class Server(Protocol):
    """A container that runs the image's entry point."""

    def resident_kib(self) -> int:
        """Resident memory of its process 1."""

    def healthy(self) -> bool:
        """Whether the image's own HEALTHCHECK command succeeds inside."""

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""

    def wait(self) -> tuple[int, str]:
        """Its exit code, and what it logged."""


class Builder(Protocol):
    """One tool and one image."""

    name: str

    def pull(self, image: str) -> bool:
        """Whether a registry gives this image."""

    def import_base(self, rootfs: Path) -> str:
        """Make a base image of a folder tree and return its name."""

    def build(self, context: Path, arguments: dict[str, str], secrets: dict[str, Path], wheels: Path | None) -> None:
        """Build the Dockerfile; ``wheels`` is a folder that it may read at /mnt."""

    def config(self) -> Config:
        """What the built image declares."""

    def compressed_bytes(self) -> int | None:
        """What is pulled; None where the tool does not say."""

    def run(self, command: list[str], bundle: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in a container without a network."""

    def start(self, port: int) -> Server:
        """Start the server so that it answers on this port of the loopback interface."""

    def clean(self) -> None:
        """Remove everything that was made."""


def call(command: list[str]) -> str:
    """Standard output of a command that has to succeed.

    Raises:
        SystemExit: it did not; its output is shown.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build_options(arguments: dict[str, str], secrets: dict[str, Path]) -> list[str]:
    """Options that the three tools share."""
    given = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
    return given + [option for key, path in secrets.items() for option in ("--secret", f"id={key},src={path}")]


def resident(status: str) -> int:
    """KiB from the text of a ``/proc/PID/status``."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def succeeds(command: list[str], seconds: float) -> bool:
    """Whether a command ends with 0 in this time."""
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=seconds).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
