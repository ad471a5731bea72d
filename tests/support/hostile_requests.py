"""Requests that no sound client sends, as the bytes on the wire."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from support.pictures import jpeg

CRLF = b"\r\n"
INFER = b"/v2/models/sar-clip/infer"
NAMES = (
    "\u202eevil", "a\u200bb", "\U0001f355", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "__proto__", "' OR 1=1 --",
    "<script>alert(1)</script>", "../../etc/passwd", "%s%n{0}${7*7}", "\ufeff", "a" * 256, "\u0301" * 256, "A\u030a",
    "\ud7ff\ue000", "\U0010ffff", "nul", "\N{LATIN SMALL LIGATURE FFI}", "ﷺ" * 200, "null", "NaN",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What came back on a connection: the first answer, and whether the connection was closed behind it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool


def talk(port: int, data: bytes, seconds: float = 20) -> Answer | None:
    """Send bytes on a connection of its own and read one answer; None where it was closed without one.

    Args:
        port: Of 127.0.0.1.
        data: What is sent.
        seconds: Raises ``TimeoutError`` after so long without an answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        try:
            return read_answer(connection)
        except ConnectionError:
            return None


def read_answer(connection: socket.socket) -> Answer | None:
    """Read one answer on a connection; None where it was closed without one."""
    with connection.makefile("rb") as stream:
        while True:
            line = stream.readline()
            if not line:
                return None
            status = int(line.split()[1])
            headers: dict[str, str] = {}
            while line := stream.readline().strip():
                name, _, value = line.decode("latin-1").partition(": ")
                headers[name.lower()] = value
            if status != 100:
                break
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(stream.readline(), 16):
                body += stream.read(size)
                stream.readline()
        else:
            body = b"" if status in (204, 304) else stream.read(int(headers.get("content-length", 0)))
    return Answer(status, headers, body, headers.get("connection") == "close")


def request(
    target: bytes = b"/v1/classify",
    body: bytes | None = None,
    kind: bytes = b"image/jpeg",
    method: bytes = b"POST",
    more: Sequence[bytes] = (),
) -> bytes:
    """One request as it should be, but for what is asked; the connection is closed behind it."""
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: localhost",
        b"Authorization: Bearer k",
        b"Connection: close",
        *more,
    ]
    if body is not None:
        lines += [b"Content-Type: " + kind, b"Content-Length: %d" % len(body)]
    return CRLF.join(lines) + CRLF * 2 + (body or b"")


def chunked(rest: bytes, target: bytes = b"/v1/classify") -> bytes:
    """A request of no declared length, with whatever stands for its chunks."""
    return request(target, None, more=[b"Content-Type: image/jpeg", b"Transfer-Encoding: chunked"]) + rest


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    """One part of multipart/form-data with the boundary B."""
    head = b'--B\r\nContent-Disposition: form-data; name="' + name + b'"' + more
    return head + CRLF * 2 + content + CRLF


def multipart(*parts: bytes, kind: bytes = b"multipart/form-data; boundary=B") -> bytes:
    """A call of ``/v1/classify`` with such parts."""
    return request(b"/v1/classify", b"".join(parts) + b"--B--\r\n", kind)


def as_json(content: object, target: bytes = b"/v1/classify") -> bytes:
    """A call with a JSON body; bytes and text are taken as they stand."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return request(target, body, b"application/json")


def zero_shot(image: str, labels: object, template: str) -> bytes:
    """A call of Hugging Face's API."""
    parameters = {"candidate_labels": labels, "hypothesis_template": template}
    return as_json({"inputs": image, "parameters": parameters}, b"/v1/zero-shot-image-classification")


@cache
def wire() -> dict[str, tuple[bytes, frozenset[int]]]:
    """Requests by name, and the statuses that are right; 0 stands for a connection closed without an answer."""
    photo = jpeg()
    text = base64.b64encode(photo).decode()
    image = part(b"image", photo, b'; filename="a.jpg"')
    get = b"GET"
    cases: dict[str, tuple[bytes, set[int]]] = {
        "http 0.9": (b"GET /healthz\r\n\r\n", {200}),
        "http 1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", {200}),
        "http 9.9": (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", {400}),
        "http 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
        "tls": (b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03" + bytes(100), {400}),
        "noise": (random.Random(0).randbytes(300), {400}),
        "lines of LF": (b"GET /healthz HTTP/1.1\nHost: x\n\n", {400}),
        "no method": (request(b"/healthz", method=b"FOO"), {400}),
        "absolute form": (request(b"http://other/healthz", method=get), {200}),
        "broken absolute form": (request(b"http://[bad", method=get), {400}),
        "asterisk": (request(b"*", method=b"OPTIONS"), {404}),
        "host is no host": (request(b"/nowhere", method=get).replace(b"Host: localhost", b"Host: ["), {400}),
        "host with a path": (request(b"/nowhere", method=get).replace(b"Host: localhost", b"Host: x/v2/y?"), {400}),
        "slash at the end": (request(b"/v1/model/", method=get), {404}),
        "bytes beyond ASCII": (request(b"/v1/classes/\xff", method=get), {400}),
        "%ff": (request(b"/v1/classes/%ff%00", method=get), {422}),
        "traversal, classes": (request(b"/v1/classes/../../etc/passwd", method=get), {404}),
        "query of 60 kB": (request(b"/v1/classes?prefix=" + b"a" * 60_000, method=get), {200}),
        "query of 300 kB": (request(b"/v1/classes?prefix=" + b"a" * 300_000, method=get), {400, 431, 0}),
        "query with half a character": (request(b"/v1/classes?prefix=%ED%A0%80", method=get), {200}),
        "6,000 classes in the query": (request(b"/v1/classify?" + b"classes=a&" * 6000, photo), {422}),
        "10,000 classes in the query": (request(b"/v1/classify?" + b"classes=a&" * 10_000, photo), {400, 431, 0}),
        "request id of two lines": (request(b"/healthz", method=get, more=[b"X-Request-ID: a\rSet-Cookie: b"]), {400}),
        "folded header": (request(b"/healthz", method=get, more=[b"X-Request-ID: a", b" Set-Cookie: b"]), {400}),
        "range of no sense": (request(b"/v1/classes", method=get, more=[b"Range: bytes=5-1,x"]), {200}),
        "conditions of no sense": (request(b"/v1/classes", method=get, more=[b'If-None-Match: ,"",W/x,\xff']), {200}),
        "websocket": (request(b"/v1/model", method=get, more=[b"Upgrade: websocket", b"Connection: Upgrade"]), {200}),
        "upgrade with a body": (request(body=photo, more=[b"Upgrade: h2c", b"Connection: Upgrade"]), {400}),
        "gzip": (request(body=photo, more=[b"Content-Encoding: gzip"]), {415}),
        "two lengths": (request(body=photo, more=[b"Content-Length: 5"]), {400}),
        "negative length": (request(more=[b"Content-Length: -5"]), {400}),
        "length of 5,000 digits": (request(more=[b"Content-Length: " + b"9" * 5000]), {400}),
        "length and chunks": (request(body=b"0\r\n\r\n", more=[b"Transfer-Encoding: chunked"]), {400}),
        "two hosts": (request(method=get, target=b"/healthz", more=[b"Host: other"]), {400}),
        "gzip and chunks": (request(more=[b"Transfer-Encoding: gzip, chunked"]) + b"0\r\n\r\n", {501}),
        "gzip as transfer": (request(more=[b"Transfer-Encoding: gzip"]) + photo, {400}),
        "chunk too large for any number": (chunked(b"f" * 30 + b"\r\n"), {400}),
        "chunk size is no number": (chunked(b"zz\r\n"), {400}),
        "endless trailers": (chunked(b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 100_000), {431, 0}),
        "endless chunk extension": (chunked(b"1;" + b"x" * 1_000_000), {431, 0}),
        "chunks of one byte": (chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in photo) + b"0\r\n\r\n"), {200}),
        "no content type": (request(body=photo, kind=b""), {415}),
        "content type of noise": (request(body=photo, kind=b"\xff/\xfe;;;=="), {415}),
        "json, half a character": (as_json(b'{"images": ["\\ud800"]}'), {400}),
        "json, keys twice": (as_json(b'{"images": [""], "images": ["' + text.encode() + b'"]}'), {200}),
        "json, deep": (as_json(b'{"images": ' + b"[" * 1_000_000), {422}),
        "json, rather deep": (as_json(b'{"images": ' + b"[" * 10_000), {400}),
        "json, NaN": (as_json(b'{"images": [NaN], "top_k": Infinity}'), {422}),
        "json, huge number": (as_json(b'{"images": [""], "top_k": ' + b"9" * 5000 + b"}"), {400}),
        "json, a million wrong pictures": (as_json(b'{"images": [' + b"1," * 10**6 + b"1]}"), {422}),
        "json, 100,000 wrong phrases": (as_json({"images": [""], "classes": dict.fromkeys(range(10**5), 1)}), {422}),
        "json, unknown field of 1 MB": (as_json({"x" * 10**6: 1}), {422}),
        "json, 500,000 pictures": (as_json({"images": [""] * 500_000}), {413, 422}),
        "json, endless marks": (as_json({"images": [text], "classes": ["a" + "\u0315\u0300" * 300_000]}), {422}),
        "json, odd names": (as_json({"images": [text], "classes": list(NAMES)}), {200, 422}),
        "json, long names": (as_json({"images": [text], "classes": [f"{i} word" for i in range(1000)]}), {200}),
        "json, names twice": (as_json({"images": [text], "classes": ["a", "A ", "a"] * 300}), {200}),
        "embeddings, empty objects": (as_json(b'{"input": [' + b"{}," * 10**6 + b"{}]}", b"/v1/embeddings"), {422}),
        "embeddings, odd names": (as_json({"input": list(NAMES)}, b"/v1/embeddings"), {200, 422}),
        "zero-shot, template that multiplies": (zero_shot(text, ["x" * 10**5] * 2, "{}" * 10**6), {422}),
        "zero-shot, labels without end": (zero_shot(text, "a," * 10**6, "{}" * 99), {422}),
        "v2, a million inputs": (as_json(b'{"inputs": [' + b"1," * 10**6 + b"1]}", INFER), {422}),
        "v2, binary data": (
            request(INFER, b"{}", b"application/octet-stream", more=[b"Inference-Header-Content-Length: 99999"]),
            {400},
        ),
        "multipart, thousands of parts": (multipart(*[part(b"classes", b"a")] * 5000), {400, 413, 422}),
        "multipart, thousands of files": (multipart(*[image] * 2000), {413}),
        "multipart in multipart": (multipart(part(b"image", image + b"--B--", b'; filename="a"')), {200, 400}),
        "multipart, absurd file name": (
            multipart(part(b"image", photo, b'; filename="../../etc\\0%00\xff\xfe"')),
            {200},
        ),
        "multipart, header in a file name": (multipart(part(b"image", photo, b'; filename="a\rX: y"')), {200, 400}),
        "multipart, name of 5 MB": (multipart(part(b"x" * 5_000_000, b"")), {400, 422}),
        "multipart, headers without end": (multipart(b"--B\r\n" + b"a: b\r\n" * 500_000), {400}),
        "multipart, cut": (request(body=image[:-100], kind=b"multipart/form-data; boundary=B"), {400}),
        "multipart, boundary almost": (multipart(part(b"image", b"\r\n--A" * 10**6, b'; filename="a"')), {200}),
    }
    for charset in (b"undefined", b"punycode", b"idna", b"hex", b"utf-7", b"utf-16", b"\xff"):
        kind = b"multipart/form-data; boundary=B; charset=" + charset
        body = part(b"image", photo, b'; filename="a\xff.jpg"') + part(b"classes", b"caf\xff") + part(b"mode", b"only")
        cases[f"multipart, charset {charset!r}"] = (multipart(body, kind=kind), {200, 422})
    for top_k in (b"1e5", b"-1", b"0", b"9" * 5000, b"1.5", b"NaN", b"0x10", b"%00", b"", b"1001"):
        cases[f"top_k {top_k[:9]!r}"] = (request(b"/v1/classify?top_k=" + top_k, photo), {422})
    return {name: (data, frozenset(statuses)) for name, (data, statuses) in cases.items()}
