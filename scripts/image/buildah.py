"""buildah, which builds without a daemon but runs only in a chroot.

What it built is run here by ``unshare`` instead: the file system read-only, a tmpfs at /tmp, the image's user without
privileges, and the command as process 1, as under Docker. It needs root.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from scripts.image.builder import PULL_SECONDS, STOP_SECONDS, Config, Server, build_options, call, resident, succeeds

LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000")  # root of a chroot cannot raise them
# $1 the image's tree, $2 a bundle or nothing, $3 user and group; the rest is the command.
ISOLATE = """
set -e
root=$1 bundle=$2 user=$3; shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for device in null urandom zero; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
if [ -n "$bundle" ]; then mount --bind "$bundle" "$root/bundle"; mount -o remount,bind,ro "$root/bundle"; fi
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"""


class Buildah:
    """buildah, with storage of its own in the scratch folder."""

    name = "buildah"

    def __init__(self, scratch: Path) -> None:
        storage = ["--storage-driver", "vfs", "--root", f"{scratch}/images", "--runroot", f"{scratch}/run"]
        self._tool = ["buildah", *storage]
        self._tag, self._base = "localhost/sar-clip-test", "localhost/sar-clip-test-base"
        self._scratch = scratch
        self._root: Path | None = None
        self._servers: list[UnsharedServer] = []

    def pull(self, image: str) -> bool:
        """See ``Builder``."""
        return succeeds([*self._tool, "pull", image], PULL_SECONDS)

    def import_base(self, rootfs: Path) -> str:
        """See ``Builder``."""
        container = call([*self._tool, "from", "scratch"]).strip()
        call([*self._tool, "add", "--quiet", container, str(rootfs), "/"])
        call([*self._tool, "commit", "--quiet", "--rm", container, self._base])
        return self._base

    def build(self, context: Path, arguments: dict[str, str], secrets: dict[str, Path], wheels: Path | None) -> None:
        """See ``Builder``."""
        own = ["--format", "docker", "--isolation", "chroot", *LIMITS]
        own += ["--volume", f"{wheels}:/mnt:ro"] if wheels else []
        call([*self._tool, "build", *own, *build_options(arguments, secrets), "--tag", self._tag, str(context)])
        container = call([*self._tool, "from", *LIMITS, self._tag]).strip()
        self._root = Path(call([*self._tool, "mount", container]).strip())

    def config(self) -> Config:
        """See ``Builder``."""
        return Config.read(json.loads(call([*self._tool, "inspect", "--type", "image", self._tag]))["Docker"]["config"])

    def compressed_bytes(self) -> int | None:
        """See ``Builder``."""
        archive = self._scratch / "image.tar"
        call([*self._tool, "push", "--quiet", self._tag, f"oci-archive:{archive}"])
        size = archive.stat().st_size
        archive.unlink()
        return size

    def run(self, command: list[str], bundle: Path | None = None) -> subprocess.CompletedProcess[str]:
        """See ``Builder``."""
        whole, environment = self._isolated(command, bundle, "--net")
        return subprocess.run(whole, env=environment, capture_output=True, text=True, check=False, timeout=120)

    def start(self, port: int) -> Server:
        """See ``Builder``; the network is the host's."""
        listen = {"SAR_HOST": "127.0.0.1", "SAR_PORT": str(port)}
        config = self.config()
        command, environment = self._isolated(config.entrypoint, None)
        health, _ = self._isolated(config.healthcheck[1:], None)
        server = UnsharedServer(command, environment | listen, health)
        self._servers.append(server)
        return server

    def clean(self) -> None:
        """See ``Builder``."""
        for server in self._servers:
            server.kill()
        subprocess.run([*self._tool, "rm", "--all"], capture_output=True, check=False)
        subprocess.run([*self._tool, "rmi", "--all", "--force"], capture_output=True, check=False)

    def _isolated(self, command: list[str], bundle: Path | None, *more: str) -> tuple[list[str], dict[str, str]]:
        config = self.config()
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", *more]
        inside = ["sh", "-c", ISOLATE, "isolate", str(self._root), str(bundle or ""), config.user]
        return [*spaces, *inside, *command], config.environment


class UnsharedServer:
    """The entry point as process 1 of its own namespaces."""

    def __init__(self, command: list[str], environment: dict[str, str], health: list[str]) -> None:
        self._environment, self._health = environment, health
        self._outer = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def _inner(self) -> int:
        """Process 1, as this machine counts."""
        until = time.monotonic() + 5
        while time.monotonic() < until and self._outer.poll() is None:
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.01)
        raise SystemExit(f"the server did not start:\n{self._outer.communicate()[0]}")

    def resident_kib(self) -> int:
        """See ``Server``."""
        return resident(Path(f"/proc/{self._inner}/status").read_text())

    def healthy(self) -> bool:
        """See ``Server``."""
        return subprocess.run(self._health, env=self._environment, check=False).returncode == 0

    def terminate(self) -> None:
        """See ``Server``."""
        os.kill(self._inner, signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """See ``Server``."""
        output, _ = self._outer.communicate(timeout=STOP_SECONDS)
        return self._outer.returncode, output

    def kill(self) -> None:
        """End it whatever it does."""
        if self._outer.poll() is None:
            self._outer.kill()
            self._outer.wait()
