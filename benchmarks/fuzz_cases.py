"""Hostile requests to a server, each made from a generator of random numbers; needs ``tests`` on the path."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable

from PIL import Image
from support import hostile, hostile_requests
from support.hostile_requests import as_json, multipart, part, request
from support.pictures import jpeg

from sar_infer.server.settings import SAFE_FORMATS

Chance = random.Random
LARGE = ("webp canvas, 40 MP", "jpeg larger than its data", "png larger than its data", "jpeg scans, allowed")
"""Sound pictures of many megapixels: the memory that they come to hold hides what is lost meanwhile."""
MOST_PIXELS = 2_000_000
"""Of a damaged picture, for the same reason; what is said to be far too large is in the warm-up."""


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
    fields = [part(b"image", picture(chance), b'; filename="a"') for _ in range(chance.randrange(1, 6))]
    fields += [part(b"classes", name(chance).encode()) for _ in range(chance.randrange(3))]
    if chance.random() < 0.3:
        body = hostile.mutated(b"".join(fields), chance)
        return request(body=body, kind=b"multipart/form-data; boundary=B")
    return multipart(*fields)


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


def case(seed: int, number: int) -> tuple[str, bytes]:
    """The kind of a case and its bytes, always the same for its seed and number; who hangs up sends a part."""
    chance = Chance(f"{seed} {number}")
    kind = chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    data = KINDS[kind][1](chance)
    return kind, data[: chance.randrange(len(data))] if kind == "hangs up" else data
