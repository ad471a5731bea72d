"""Peak memory of ``sar-serve`` for the worst image of every format, in a memory cgroup of the size that ships.

    sudo python -m benchmarks.memory [--limit 2048] [--at-once 1 2 8] [--kinds WORD]

For each kind of ``tests/support/giants.py`` a fresh server, with the allocator's settings of the Dockerfile and the
workers of ``deploy/kubernetes.yaml``, enters a cgroup (version 1 or 2, whichever this machine has) and gets the image
once, then two and eight times at the same moment, while good photos are sent and ``/healthz`` is asked. The last rows
are all kinds together, and the longest bodies that are JSON. A row shows the answers, the cgroup's and the process's
peak, and the slowest health check. Ends with status 1 if the server died or was too
slow; an image that takes more memory than its worker has gets 413, or 422 from a decoder that puts it otherwise.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import command
from benchmarks.command import ROOT

MIB = 2**20
FORMATS = "JPEG,PNG,WEBP,GIF,BMP,TIFF"
GOOD = (200, 413, 422, 429)
HEADS = ("image", "bytes", "times", "answers", "s", "cgroup MiB", "process MiB", "health ms", "photos, the slowest")


@dataclass(frozen=True)
class Cgroup:
    """A cgroup of its own for a server; ``make`` finds out which version the machine has."""

    folder: Path
    version: int

    @classmethod
    @contextlib.contextmanager
    def make(cls, limit: int) -> Iterator[Cgroup]:
        """Make one with a limit in bytes, without swap, and remove it in the end; say so and exit where none can be."""
        name, tried = f"sar-memory-{os.getpid()}", []
        for version, top in ((1, Path("/sys/fs/cgroup/memory")), (2, Path("/sys/fs/cgroup"))):
            folder = top / name
            try:
                if version == 2:
                    (top / "cgroup.subtree_control").write_text("+memory")
                folder.mkdir()
            except OSError as error:
                tried.append(f"version {version}: {error}")
                continue
            try:
                (folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")).write_text(str(limit))
                with contextlib.suppress(OSError):  # where swap is not counted there is none
                    swap, value = ("memory.memsw.limit_in_bytes", limit) if version == 1 else ("memory.swap.max", 0)
                    (folder / swap).write_text(str(value))
                yield cls(folder, version)
            finally:
                _until(functools.partial(_is_empty, folder), 10)
                folder.rmdir()
            return
        print(f"Nothing was measured: no memory cgroup can be made here ({'; '.join(tried)}).")
        print("Run it as root on a machine, or in a container, whose /sys/fs/cgroup can be written.")
        sys.exit(0)

    def peak(self) -> int:
        """Bytes at most so far, page cache included; 0 where the kernel does not tell."""
        with contextlib.suppress(OSError):
            return int(
                (self.folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")).read_text()
            )
        return 0

    def kills(self) -> int:
        """Return the number of processes ended for lack of memory."""
        text = (self.folder / ("memory.oom_control" if self.version == 1 else "memory.events")).read_text()
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))


def _is_empty(folder: Path) -> bool:
    return not (folder / "cgroup.procs").read_text()


@dataclass
class Watched:
    """Answers that good clients got meanwhile."""

    health: list[float] = field(default_factory=list)
    photos: Counter[str] = field(default_factory=Counter)
    slowest: float = 0


@dataclass(frozen=True)
class Server:
    """``sar-serve`` in a cgroup."""

    process: subprocess.Popen[bytes]
    port: int
    cgroup: Cgroup
    line: str

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "image/jpeg") -> str:
        """The status of an answer, or what went wrong."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            return str(connection.getresponse().status)
        except OSError as error:
            return type(error).__name__
        finally:
            connection.close()

    @contextlib.contextmanager
    def watched(self, photo: bytes) -> Iterator[Watched]:
        """Ask for its health ten times a second, and classify a good photo again and again."""
        watched, ended = Watched(), threading.Event()

        def health() -> None:
            while not ended.wait(0.1):
                start = time.perf_counter()
                self.ask("GET", "/healthz")
                watched.health.append(time.perf_counter() - start)

        def photos() -> None:
            while not ended.wait(0.1):
                start = time.perf_counter()
                watched.photos[self.ask("POST", "/v1/classify", photo)] += 1
                watched.slowest = max(watched.slowest, time.perf_counter() - start)

        threads = [threading.Thread(target=work) for work in (health, photos)]
        for thread in threads:
            thread.start()
        try:
            yield watched
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def resident(self) -> int:
        """Bytes of the process at most so far; 0 where it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0


@contextlib.contextmanager
def serving(limit: int, *options: str) -> Iterator[Server]:
    """A server in a cgroup, until the block ends."""
    settings = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_TRIM_THRESHOLD_": str(MIB)}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SAR_", "MALLOC_"))}
    environment |= settings | {"SAR_WORKERS": "2", "SAR_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sar_infer.cli.serve", "--port", "0", "--no-access-log", "--deadline", "300"]
    command += ["--image-timeout", "120", *options]  # the machine may be busy: memory is measured, not time
    with Cgroup.make(limit) as cgroup, tempfile.TemporaryFile() as log:
        enter = ["sh", "-c", f'echo $$ > {cgroup.folder}/cgroup.procs; exec "$@"', "sh"]
        process = subprocess.Popen([*enter, *command], stderr=log, env=environment)

        def line() -> str:
            log.seek(0)
            return next((text for text in log.read().decode().splitlines() if " Serving " in text), "")

        try:
            _until(lambda: line() or process.poll() is not None, 120)
            if not line():
                sys.exit(f"the server did not start: exit {process.poll()}")
            port = int(line().partition("http://127.0.0.1:")[2].split()[0])
            yield Server(process, port, cgroup, line().partition(" Serving ")[2])
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def _until(done: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)


class Table:
    """A row for each load, and the faults."""

    def __init__(self, photo: bytes) -> None:
        self.faults: list[str] = []
        self._photo = photo
        self.rows: list[tuple[object, ...]] = []

    def row(self, server: Server, name: str, bodies: Sequence[bytes], kind: str = "image/jpeg") -> None:
        """Send bodies at the same moment."""
        start = time.perf_counter()
        with server.watched(self._photo) as watched, ThreadPoolExecutor(len(bodies)) as pool:
            answers = Counter(pool.map(lambda body: server.ask("POST", "/v1/classify", body, kind), bodies))
        seconds = time.perf_counter() - start
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
        photos = ", ".join(f"{count} x {status}" for status, count in sorted(watched.photos.items()))
        peaks = f"{server.cgroup.peak() / MIB:.0f}", f"{server.resident() / MIB:.0f}"
        health = f"{max(watched.health, default=0) * 1000:.0f}"
        row = (name, max(map(len, bodies)), len(bodies), statuses, f"{seconds:.1f}", *peaks, health)
        self.rows.append((*row, f"{photos}, {watched.slowest:.1f} s"))
        command.say(" ".join(map(str, self.rows[-1])))
        if server.process.poll() is not None or server.cgroup.kills():
            self.faults.append(f"{name}, {len(bodies)} at once: the server died")
        if not set(answers) <= set(map(str, GOOD)) or (len(bodies) == 1 and "429" in answers):
            self.faults.append(f"{name}, {len(bodies)} at once: {statuses}")


def made(name: str) -> bytes:
    """An image of that name, made in a process of its own, which may take a gigabyte."""
    code = "import sys; from support.giants import GIANTS, SIZE; sys.stdout.buffer.write(GIANTS[sys.argv[1]](SIZE))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(
        [sys.executable, "-c", code, name], stdout=subprocess.PIPE, check=True, env=environment
    ).stdout


def long_json(photo: bytes) -> bytes:
    """The longest body that a server takes, with a photo that is mostly padding behind its end."""
    text = base64.b64encode(photo + bytes(7 * MIB)).decode()
    return json.dumps({"images": [text]}).encode()


def main() -> None:
    """Measure all kinds."""
    from PIL import Image
    from support.giants import GIANTS

    options = command.options(
        __doc__,
        limit=(2048, "MiB of the cgroup"),
        at_once=[1, 2, 8],
        kinds=("", "only those with the word in their name"),
    )
    names = [name for name in GIANTS if options.kinds.lower() in name.lower()]
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "JPEG")
    photo, limit = stream.getvalue(), options.limit * MIB
    table, everything = Table(photo), []
    for name in names:
        everything.append(giant := made(name))
        with serving(limit, "--formats", FORMATS) as server:
            for count in options.at_once:
                table.row(server, name, [giant] * count)
    with serving(limit, "--formats", FORMATS) as server:
        table.row(server, "all of these", everything * 2)
        table.row(server, "JSON of 9.3 MiB", [long_json(photo)] * 40, "application/json")
        workers = server.line.partition(" (")[2].partition(")")[0]
        machine = f"{workers}; cgroup version {server.cgroup.version}, {options.limit} MiB"
    command.tell(f"{command.markdown(HEADS, table.rows)}\n\n{machine}")
    command.end(table.faults)


if __name__ == "__main__":
    main()
