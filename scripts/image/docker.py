"""Docker, and podman, whose commands are the same."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.image.builder import PULL_SECONDS, STOP_SECONDS, Config, Server, build_options, call, resident, succeeds


class Docker:
    """Docker, or podman, whose commands are the same."""

    sandbox = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108

    def __init__(self, program: str) -> None:
        self.name = program
        self._tag = f"localhost/sar-clip-test:{os.getpid()}"
        self._base = f"localhost/sar-clip-test-base:{os.getpid()}"
        self._started: list[str] = []

    def pull(self, image: str) -> bool:
        """See ``Builder``."""
        return succeeds([self.name, "pull", image], PULL_SECONDS)

    def import_base(self, rootfs: Path) -> str:
        """See ``Builder``."""
        with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as packing:
            subprocess.run([self.name, "import", "-", self._base], stdin=packing.stdout, check=True)
        return self._base

    def build(self, context: Path, arguments: dict[str, str], secrets: dict[str, Path], wheels: Path | None) -> None:
        """See ``Builder``; Docker itself mounts no folder into a build."""
        own = ["--format", "docker"] if self.name == "podman" else []
        own += ["--volume", f"{wheels}:/mnt:ro"] if wheels and self.name == "podman" else []
        call([self.name, "build", *own, *build_options(arguments, secrets), "--tag", self._tag, str(context)])

    def config(self) -> Config:
        """See ``Builder``."""
        return Config.read(json.loads(call([self.name, "image", "inspect", self._tag]))[0]["Config"])

    def compressed_bytes(self) -> int | None:
        """None: what these tools save may be packed or not."""
        return None

    def run(self, command: list[str], bundle: Path | None = None) -> subprocess.CompletedProcess[str]:
        """See ``Builder``."""
        volume = ["--volume", f"{bundle}:/bundle:ro"] if bundle else []
        options = ["--rm", "--network", "none", *self.sandbox, *volume, "--entrypoint", command[0]]
        whole = [self.name, "run", *options, self._tag, *command[1:]]
        return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=120)

    def start(self, port: int) -> Server:
        """See ``Builder``."""
        publish = f"127.0.0.1:{port}:8000"
        container = call([self.name, "run", "--detach", *self.sandbox, "--publish", publish, self._tag]).strip()
        self._started.append(container)
        return DockerServer(self.name, container, self.config().healthcheck[1:])

    def clean(self) -> None:
        """See ``Builder``."""
        for container in self._started:
            subprocess.run([self.name, "rm", "--force", container], capture_output=True, check=False)
        subprocess.run([self.name, "image", "rm", self._tag, self._base], capture_output=True, check=False)


@dataclass
class DockerServer:
    """A container of Docker's or podman's."""

    program: str
    container: str
    healthcheck: list[str]

    def resident_kib(self) -> int:
        """See ``Server``."""
        show = "print(open('/proc/1/status').read())"
        return resident(call([self.program, "exec", self.container, "python", "-c", show]))

    def healthy(self) -> bool:
        """See ``Server``."""
        command = [self.program, "exec", self.container, *self.healthcheck]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def terminate(self) -> None:
        """See ``Server``."""
        subprocess.run([self.program, "kill", "--signal", "TERM", self.container], capture_output=True, check=False)

    def wait(self) -> tuple[int, str]:
        """See ``Server``."""
        command = [self.program, "wait", self.container]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=STOP_SECONDS)
        logs = subprocess.run([self.program, "logs", self.container], capture_output=True, text=True, check=False)
        return int(done.stdout), logs.stdout + logs.stderr
