"""Thousands of hostile requests against a real ``sar-serve``: what it answers, and what it is like afterwards.

    python benchmarks/serving_fuzz.py [--cases 6000] [--seed 0] [--clients 8] [--megabytes 64]

Damaged and lying pictures by every protocol, broken HTTP, odd class names, clients that hang up. A first round, every
hostile picture and request that the tests know, warms the server up; then its memory and open files are measured. Ends
with status 1, and says what it found, where an answer was a fault (any 5xx but 503, 504 and 507), had no known form or
never came, where the log has a traceback, the server died or is not ready, open files grew by more than a few, or
memory by more than the megabytes given from the first quarter of the time to the last. The server's class sets may
take 64 MiB. Its allocator is told to give back what is free, so that what is lost shows; set MALLOC_ARENA_MAX and
MALLOC_MMAP_THRESHOLD_ yourself to measure another.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil  # noqa: E402
from PIL import Image  # noqa: E402
from support import hostile, hostile_requests  # noqa: E402
from support.hostile_requests import Answer, as_json, multipart, part, request, talk  # noqa: E402
from support.pictures import jpeg  # noqa: E402
from support.servers import Server, serving  # noqa: E402

from sar_infer.server.settings import SAFE_FORMATS  # noqa: E402

MIB = 2**20
LARGE = ("webp canvas, 40 MP", "jpeg larger than its data", "png larger than its data", "jpeg scans, allowed")
"""Sound pictures of many megapixels: the memory that they come to hold hides what is lost meanwhile."""
MOST_PIXELS = 2_000_000
"""Of a damaged picture, for the same reason; what is said to be far too large is in the warm-up."""
DOCUMENTED = {503, 504, 507}
MOST_NEW_FILES = 10
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_TRIM_THRESHOLD_": str(MIB)}
Chance = random.Random


def picture(chance: Chance) -> bytes:
    """A damaged picture, now and then a lying one."""
    if chance.random() < 0.05:
        return chance.choice([data for name, (data, _) in hostile.corpus().items() if name not in LARGE])
    while True:
        data = hostile.mutated(chance.choice(hostile.sound()), chance)
        if size(data) <= MOST_PIXELS:
            return data


def size(data: bytes) -> int:
    """Pixels that a picture says it has; 0 where it says nothing."""
    try:
        with Image.open(io.BytesIO(data), formats=SAFE_FORMATS) as image:
            return image.width * image.height
    except Exception:  # whatever is wrong with it, the server is to find out
        return 0


def text(chance: Chance) -> str:
    """A damaged picture in base64."""
    return base64.b64encode(picture(chance)).decode()


def name(chance: Chance) -> str:
    """An odd class name, or one of characters from everywhere."""
    if chance.random() < 0.3:
        return chance.choice(hostile_requests.NAMES)
    length = chance.randrange(1, chance.choice((4, 40)))
    picked = [chance.choice((chance.randrange(32, 0x250), chance.randrange(0x110000))) for _ in range(length)]
    return "".join(chr(code) for code in picked if not 0xD800 <= code < 0xE000)


def raw(chance: Chance) -> bytes:
    """One picture as it is."""
    return request(body=picture(chance), kind=chance.choice((b"image/jpeg", b"image/png", b"application/octet-stream")))


def form(chance: Chance) -> bytes:
    """Several pictures in multipart, sometimes damaged as a whole."""
    parts = [part(b"image", picture(chance), b'; filename="a"') for _ in range(chance.randrange(1, 6))]
    parts += [part(b"classes", name(chance).encode()) for _ in range(chance.randrange(3))]
    if chance.random() < 0.3:
        body = hostile.mutated(b"".join(parts), chance)
        return request(body=body, kind=b"multipart/form-data; boundary=B")
    return multipart(*parts)


def call(chance: Chance) -> bytes:
    """The JSON form."""
    content: dict[str, object] = {"images": [text(chance) for _ in range(chance.randrange(1, 4))]}
    if chance.random() < 0.7:
        content["classes"] = [name(chance) for _ in range(chance.randrange(4))]
    if chance.random() < 0.3:
        content[chance.choice(("top_k", "mode", "x"))] = chance.choice((0, -1, 10**20, None, "only", [], {}, 3))
    data = json.dumps(content).encode()
    return as_json(hostile.mutated(data, chance) if chance.random() < 0.2 else data)


def embeddings(chance: Chance) -> bytes:
    """OpenAI's protocol."""
    if chance.random() < 0.5:
        content: object = {"input": [name(chance) for _ in range(chance.randrange(4))], "encoding_format": "base64"}
    else:
        content = {
            "input": [{"image": text(chance)}, {"text": name(chance)}],
            "modality": chance.choice(("image", "x")),
        }
    return as_json(content, b"/v1/embeddings")


def zero_shot(chance: Chance) -> bytes:
    """Hugging Face's protocol."""
    options = {"candidate_labels": [name(chance) for _ in range(3)], "hypothesis_template": "{} " * chance.randrange(3)}
    return as_json({"inputs": text(chance), "parameters": options}, b"/v1/zero-shot-image-classification")


def inference(chance: Chance) -> bytes:
    """Open Inference Protocol, as JSON or binary."""
    if chance.random() < 0.5:
        shape = [chance.choice((1, 1, 2, 0, -1, 2**63))]
        item = {"name": "IMAGE", "datatype": chance.choice(("BYTES", "FP32")), "shape": shape, "data": [text(chance)]}
        return as_json({"inputs": [item]}, b"/v2/models/sar-clip/infer")
    data = picture(chance)
    size = len(data) + 4 + chance.choice((0, 0, 0, 1, -1))
    parameters = {"binary_data_size": size}
    head = json.dumps(
        {"inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": [1], "parameters": parameters}]}
    ).encode()
    length = b"Inference-Header-Content-Length: %d" % (len(head) + chance.choice((0, 0, 0, 1, -1, 10**9)))
    body = head + len(data).to_bytes(4, "little") + data
    return request(b"/v2/models/sar-clip/infer", body, b"application/octet-stream", more=[length])


def bank(chance: Chance) -> bytes:
    """A class is added, read or removed."""
    quoted = b"".join(b"%%%02X" % byte for byte in name(chance).encode())
    method = chance.choice((b"PUT", b"PUT", b"DELETE", b"GET"))
    body = json.dumps({"phrases": [name(chance)]}).encode() if method == b"PUT" and chance.random() < 0.3 else None
    return request(b"/v1/classes/" + quoted, body, b"application/json", method)


def wire(chance: Chance) -> bytes:
    """Damaged HTTP."""
    small = [data for data, _ in hostile_requests.wire().values() if len(data) < 20_000]
    return hostile.mutated(chance.choice(small), chance)


def line(chance: Chance) -> bytes:
    """Any method on any path."""
    path = chance.choice(hostile_requests.PATHS).encode() + chance.choice((b"", b"", b"/", b"/..", b"?x=%00", b"%2e"))
    method = chance.choice(hostile_requests.METHODS).encode()
    return request(path, chance.choice((None, b"", b"{}", jpeg())), method=method)


KINDS: dict[str, tuple[int, Callable[[Chance], bytes]]] = {
    "raw picture": (35, raw),
    "multipart": (12, form),
    "JSON": (12, call),
    "embeddings": (6, embeddings),
    "zero-shot": (6, zero_shot),
    "Open Inference Protocol": (8, inference),
    "bank": (6, bank),
    "damaged HTTP": (8, wire),
    "method and path": (5, line),
    "hangs up": (2, raw),
}


class Record:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.slowest: defaultdict[str, float] = defaultdict(float)
        self.faults: list[str] = []

    def add(self, kind: str, case: object, answer: Answer | None) -> None:
        """One answer; 0 stands for a connection closed without one."""
        self.statuses[kind][answer.status if answer else 0] += 1
        if answer is None:
            return
        self.slowest[kind] = max(self.slowest[kind], answer.seconds)
        if answer.status >= 500 and answer.status not in DOCUMENTED:
            self.faults.append(f"{kind} {case}: {answer.status} {answer.body[:300]!r}")
        if b"Traceback" in answer.body:
            self.faults.append(f"{kind} {case}: a traceback in the answer")
        told = answer.status >= 400 and not answer.headers.get("content-type", "").startswith("text/plain")
        if told and answer.body and not {"code", "error"} & set(json.loads(answer.body)):
            self.faults.append(f"{kind} {case}: an error of no known form: {answer.body[:300]!r}")

    def show(self) -> None:
        """A table by kind."""
        print(f"{'kind':24}{'cases':>7}{'slowest':>10}  statuses (0: none)")
        for kind, counts in self.statuses.items():
            shown = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
            print(f"{kind:24}{counts.total():7}{self.slowest[kind]:8.2f} s  {shown}")


class Watch:
    """Memory and open files of a process over time; one sample each quarter of a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.memory: list[float] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.25):
            self.memory.append(self._process.memory_info().rss / MIB)

    def files(self) -> int:
        """Open now."""
        return self._process.num_fds()

    def quarters(self) -> list[float]:
        """Median memory of each quarter of the time, in MiB."""
        step = max(1, len(self.memory) // 4)
        return [statistics.median(self.memory[i * step : (i + 1) * step] or [float("nan")]) for i in range(4)]


def warm_up(server: Server, record: Record) -> None:
    """Every hostile picture and request that the tests know."""
    for label, (data, status) in hostile.corpus().items():
        answer = talk(server.port, request(body=data))
        record.add("known picture", label, answer)
        if answer is None or answer.status != status:
            record.faults.append(f"known picture {label}: {answer and answer.status}, expected {status}")
    for label, (data, statuses) in hostile_requests.wire().items():
        answer = talk(server.port, data)
        record.add("known request", label, answer)
        if (answer.status if answer else 0) not in statuses:
            record.faults.append(f"known request {label}: {answer and answer.status}, expected {sorted(statuses)}")


def run(server: Server, record: Record, seed: int, number: int) -> None:
    """One case, always the same for its seed and number."""
    chance = Chance(f"{seed} {number}")
    kind = chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    data = KINDS[kind][1](chance)
    if kind == "hangs up":
        data = data[: chance.randrange(len(data))]
    patience = 0.5 if kind == "damaged HTTP" else 20  # what lacks its end waits for it
    try:
        record.add(kind, number, talk(server.port, data, patience, end=kind == "hangs up"))
    except TimeoutError:
        if kind == "damaged HTTP":
            record.add(kind, number, None)
            return
        record.faults.append(f"{kind} {number}: no answer")
    except Exception as error:  # an answer that cannot be read is a finding
        record.faults.append(f"{kind} {number}: {error!r}")


def attack(server: Server, record: Record, options: argparse.Namespace) -> None:
    """The warm-up and all cases; prints what became of memory and files."""
    start = time.monotonic()
    warm_up(server, record)
    with ThreadPoolExecutor(options.clients) as clients:
        list(clients.map(lambda number: run(server, record, options.seed, -1 - number), range(500)))
        time.sleep(1)
        with Watch(server.process.pid) as watch:
            files = watch.files()
            list(clients.map(lambda number: run(server, record, options.seed, number), range(options.cases)))
    time.sleep(1)
    left, quarters = watch.files(), watch.quarters()
    ready = talk(server.port, request(b"/readyz", method=b"GET"))
    if ready is None or ready.status != 200:
        record.faults.append("not ready afterwards")
    if not quarters[3] - quarters[0] <= options.megabytes:
        record.faults.append("memory grew")
    if left > files + MOST_NEW_FILES:
        record.faults.append("open files grew")
    if "Traceback" in (log := server.log.read_text()):
        record.faults.append("a traceback in the log:\n" + log[log.index("Traceback") :][:3000])
    total = sum(counts.total() for counts in record.statuses.values())
    print(f"{total} cases in {time.monotonic() - start:.0f} s")
    shown = ", ".join(f"{quarter:.0f}" for quarter in quarters)
    print(f"memory in MiB, median of each quarter after the warm-up: {shown}")
    print(f"most memory ever, in MiB: {peak_memory(server.process.pid):.0f}")
    print(f"open files after the warm-up {files}, at the end {left}")


def main() -> None:
    """Attack, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=64, help="from the first quarter to the last")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    record = Record()
    print(f"Python {platform.python_version()}, seed {options.seed}, {options.clients} clients")
    with tempfile.TemporaryDirectory() as state, serving("--state", state, key="k") as server:
        attack(server, record, options)
    record.show()
    print(f"{len(record.faults)} faults")
    for fault in record.faults[:50]:
        print("FAULT", fault)
    sys.exit(bool(record.faults))


def peak_memory(pid: int) -> float:
    """The most that a process has had in memory, in MiB; NaN where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


if __name__ == "__main__":
    main()
