"""Peak memory of ``sar-serve`` for the worst image of every format, in a memory cgroup of the size that ships.

    sudo python -m benchmarks.memory [--limit 2048] [--at-once 1 2 8] [--kinds WORD]

For each kind of ``tests/support/giants.py`` a fresh server, with the allocator's settings of the Dockerfile and the
workers of ``deploy/kubernetes.yaml``, enters a cgroup (version 1 or 2, whichever this machine has) and gets the image
once, then two and eight times at the same moment, while ``/healthz`` is asked. A row shows the answers, the cgroup's
peak, and the slowest health check. Ends with status 1 if the server died, a single image was not answered 200, or any
answer was neither 200 nor 429.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks import command
from benchmarks.command import ROOT

MIB = 2**20
SETTINGS = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_TRIM_THRESHOLD_": str(MIB),
    "SAR_WORKERS": "2", "SAR_THREADS": "1", "PYTHONPATH": str(ROOT),
}  # fmt: skip
FILES = {
    1: ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("/sys/fs/cgroup", "memory.max", "memory.peak", "memory.events"),
}
"""Folder, limit, peak and kills of each version of cgroups."""


@contextlib.contextmanager
def cgroup(limit: int) -> Iterator[tuple[Path, int]]:
    """Make a memory cgroup with a limit in bytes, and yield its folder and version; exit if none can be made."""
    for version, (top, limit_file, *_) in FILES.items():
        folder = Path(top) / f"sar-memory-{os.getpid()}"
        try:
            if version == 2:
                Path(top, "cgroup.subtree_control").write_text("+memory")
            folder.mkdir()
        except OSError:
            continue
        (folder / limit_file).write_text(str(limit))
        try:
            yield folder, version
        finally:
            time.sleep(1)
            folder.rmdir()
        return
    print("Nothing was measured: run it as root where a memory cgroup can be made in /sys/fs/cgroup.")
    sys.exit(0)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield a server in a cgroup, and its port."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SAR_", "MALLOC_"))} | SETTINGS
    enter = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh", sys.executable, "-m"]
    options = ["--port", "0", "--set", "access-log=false", "--set", "formats=JPEG,PNG,WEBP,GIF,BMP,TIFF"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*enter, "sar_infer.cli.serve", *options], stderr=log, env=environment)
        line, end = "", time.monotonic() + 120
        while not line and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
            log.seek(0)
            line = next((text for text in log.read().decode().splitlines() if " Serving " in text), "")
        try:
            if not line:
                sys.exit(f"the server did not start: exit {process.poll()}")
            yield process, int(line.partition("http://127.0.0.1:")[2].split()[0])
        finally:
            process.terminate()
            process.wait(60)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> str:
    """Return the status of an answer, or what went wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
        return str(connection.getresponse().status)
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def slowest_health(port: int, pending: list[Future[str]]) -> float:
    """Ask for the server's health ten times a second until nothing is pending, and return the longest seconds."""
    slowest = 0.0
    while not all(future.done() for future in pending):
        start = time.perf_counter()
        ask(port, "GET", "/healthz")
        slowest = max(slowest, time.perf_counter() - start)
        time.sleep(0.1)
    return slowest


def main() -> None:
    """Measure all kinds."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.giants import GIANTS

    options = command.options(
        __doc__,
        limit=(2048, "MiB of the cgroup"),
        at_once=[1, 2, 8],
        kinds=("", "only those with the word in their name"),
    )
    code = "import sys; from support.giants import GIANTS, SIZE; sys.stdout.buffer.write(GIANTS[sys.argv[1]](SIZE))"
    rows: list[tuple[object, ...]] = []
    faults = []
    for name in (name for name in GIANTS if options.kinds.lower() in name.lower()):
        making = [sys.executable, "-c", code, name]  # in a process of its own, which may take a gigabyte
        tests = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        giant = subprocess.run(making, stdout=subprocess.PIPE, check=True, env=tests).stdout
        with cgroup(options.limit * MIB) as (folder, version), serving(folder) as (process, port):
            for count in options.at_once:
                start = time.perf_counter()
                with ThreadPoolExecutor(count) as pool:
                    asked = [pool.submit(ask, port, "POST", "/v1/classify", giant) for _ in range(count)]
                    health = slowest_health(port, asked)
                answers = Counter(future.result() for future in asked)
                seconds, (_, _, peak, kills) = time.perf_counter() - start, FILES[version]
                said = ", ".join(f"{times} x {status}" for status, times in sorted(answers.items()))
                used = int((folder / peak).read_text()) / MIB
                rows.append((name, len(giant), count, said, f"{seconds:.1f}", f"{used:.0f}", f"{health * 1000:.0f}"))
                command.say(" ".join(map(str, rows[-1])))
                killed = dict(line.split() for line in (folder / kills).read_text().splitlines()).get("oom_kill", "0")
                if process.poll() is not None or killed != "0":
                    faults.append(f"{name}, {count} at once: the server died")
                if not set(answers) <= {"200", "429"} or (count == 1 and set(answers) != {"200"}):
                    faults.append(f"{name}, {count} at once: {said}")
    command.tell(command.markdown(("image", "bytes", "times", "answers", "s", "cgroup MiB", "health ms"), rows))
    command.end(faults)


if __name__ == "__main__":
    main()
