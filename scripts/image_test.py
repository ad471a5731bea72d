"""Build the container image, look into it, and use it the way a user does: ``python3 -m scripts.image_test``.

Takes Docker, podman or, as root, buildah, whichever is there. A base is pulled; where no registry answers, ``--rootfs``
names a folder tree to use instead, or debootstrap makes one. The settings that pip has on this machine reach the build
as secrets, and no layer. Needs nothing but Python. Prints a table, or with ``--json`` the same as JSON on standard
output; images and containers are removed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.image.buildah import Buildah
from scripts.image.builder import Builder, Config, Server, UnavailableError, succeeds
from scripts.image.docker import Docker
from scripts.image.pip_settings import pip_settings

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
LARGEST_MIB = {"cpu": 400, "cuda": 8000}
READY_SECONDS = 60
DEBOOTSTRAP_SECONDS = 300
LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, os, shutil, stat
size, seen, writable, raising = 0, set(), [], []
for folder, below, files in os.walk('/'):
    below[:] = [name for name in below if os.path.join(folder, name) not in ('/proc', '/sys', '/dev')]
    if os.access(folder, os.W_OK):
        writable.append(folder)
    for name in files:
        about = os.lstat(os.path.join(folder, name))
        size += 0 if about.st_ino in seen else about.st_size
        seen.add(about.st_ino)
        if stat.S_ISREG(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raising.append(os.path.join(folder, name))
packages = 'torch torchvision open_clip timm onnx pip setuptools ensurepip sar_train'.split()
programs = 'cc gcc g++ make pip pip3 sar-train'.split()
print(json.dumps({
    'state_owner': os.stat('/state').st_uid, 'raising': raising,
    'uid': os.getuid(), 'bytes': size, 'writable': writable, 'pid': os.getpid(),
    'packages': [name for name in packages if util.find_spec(name)],
    'programs': [name for name in programs if shutil.which(name)],
    'runtimes': sorted(d.name for d in metadata.distributions() if d.name.startswith('onnxruntime')),
}))
"""
DRAW = """
import base64, io
from PIL import Image
Image.radial_gradient('L').convert('RGB').resize((320, 240)).save(kept := io.BytesIO(), 'PNG')
print(base64.b64encode(kept.getvalue()).decode())
"""
CLASSIFY = """
import base64, subprocess, sys
command = ['sar-classify', '-', '--format', 'jsonl', '--top-k', '1']
sys.exit(subprocess.run(command, input=base64.b64decode(sys.argv[1])).returncode)
"""


def main() -> int:
    """Build, check, measure; the exit code is 0 where all checks passed."""
    parser = argparse.ArgumentParser(description="Build the container image and test it.")
    parser.add_argument("--tool", choices=["docker", "podman", "buildah"], help="default: the first that works")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--base", help="base image in place of the Dockerfile's")
    parser.add_argument("--rootfs", type=Path, help="folder tree of a Debian with python3, venv and pip, as the base")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--allow-skip", action="store_true", help="exit code 0 where no image can be built here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sar-image-") as scratch:
        try:
            builder = choose(arguments.tool, Path(scratch))
            try:
                figures = test(builder, arguments, Path(scratch))
            finally:
                builder.clean()
        except UnavailableError as reason:
            print(f"skipped: {reason}", file=sys.stderr if arguments.json else sys.stdout)
            return 0 if arguments.allow_skip else 1
    print(json.dumps(figures, indent=2) if arguments.json else table(figures))
    return 0


def choose(name: str | None, scratch: Path) -> Builder:
    """The named tool, else the first that works.

    Raises:
        UnavailableError: there is none.
    """
    for program in [name] if name else ["docker", "podman", "buildah"]:
        if program == "buildah":
            if shutil.which(program) and os.geteuid() == 0 and succeeds(["unshare", "-mp", "--fork", "true"], 20):
                return Buildah(scratch)
        elif succeeds([program, "info"], 60):
            return Docker(program)
    raise UnavailableError(f"{name or 'docker, podman or buildah'} cannot be used here (buildah needs root)")


def test(builder: Builder, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All of it; what is measured comes back."""
    started = time.monotonic()
    base = arguments.base or find_base(builder, arguments.rootfs, scratch)
    build_arguments = {
        "DEVICE": arguments.device,
        "VERSION": VERSION,
        "REVISION": revision(),
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | ({"BASE_IMAGE": base} if base else {})
    say(f"building with {builder.name}, base {base or 'as in the Dockerfile'}")
    building = time.monotonic()
    builder.build(ROOT, build_arguments, *pip_settings(scratch))
    figures: dict[str, Any] = {"tool": builder.name, "device": arguments.device, "base": base or "Dockerfile's"}
    figures["build_seconds"] = round(time.monotonic() - building, 1)
    check_config(builder.config(), build_arguments)
    figures |= check_contents(builder, arguments.device)
    compressed = builder.compressed_bytes()
    figures["pulled_mib"] = compressed and round(compressed / 2**20)
    check_commands(builder, scratch)
    figures |= check_server(builder)
    figures["whole_seconds"] = round(time.monotonic() - started, 1)
    return figures


def find_base(builder: Builder, rootfs: Path | None, scratch: Path) -> str | None:
    """An image made of a folder tree, or None where the Dockerfile's own can be pulled.

    Raises:
        UnavailableError: no registry answers and no folder tree can be made.
    """
    if rootfs is None:
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        (default,) = re.findall(r"^ARG BASE_IMAGE=(\S+)", dockerfile, re.MULTILINE)
        if builder.pull(default):
            return None
        if shutil.which("debootstrap") is None or os.geteuid():
            raise UnavailableError(f"{default} cannot be pulled, and only root with debootstrap can make a base")
        rootfs = scratch / "rootfs"
        say(f"{default} cannot be pulled: debootstrap makes a base, about 90 s")
        include = "--include=python3,python3-venv,python3-pip,ca-certificates"
        if not succeeds(["debootstrap", "--variant=minbase", include, "trixie", str(rootfs)], DEBOOTSTRAP_SECONDS):
            raise UnavailableError(f"{default} cannot be pulled, and debootstrap failed")
    return builder.import_base(rootfs)


def revision() -> str:
    """The commit, where this is a checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def check_config(config: Config, given: dict[str, str]) -> None:
    """The image says what runs, as whom, how to ask it whether it is well, and what it is."""
    expect(re.fullmatch(r"[1-9]\d*:[1-9]\d*", config.user), f"user is {config.user!r}, not numeric and unprivileged")
    expect(config.entrypoint == ["sar-serve"], f"entry point is {config.entrypoint}")
    expect(config.healthcheck[:2] == ["CMD", "python"], f"health check is {config.healthcheck}")
    expect(config.stop_signal == "SIGTERM", f"stop signal is {config.stop_signal!r}")
    expect(config.ports == ["8000/tcp"], f"ports are {config.ports}")
    for label, argument in (("version", "VERSION"), ("revision", "REVISION"), ("created", "CREATED")):
        found = config.labels.get(f"org.opencontainers.image.{label}")
        expect(found == given[argument], f"label {label} is {found!r}, not {given[argument]!r}")
    say("user, entry point, health check, labels: as declared")


def check_contents(builder: Builder, device: str) -> dict[str, Any]:
    """Nothing in it that a server does not need, and nowhere to write but /tmp."""
    found = json.loads(output(builder, ["python", "-c", LOOK]))
    expect(found["uid"] > 0 and found["pid"] == 1, f"ran as {found['uid']}, process {found['pid']}")
    expect(not found["packages"] and not found["programs"], f"in the image: {found['packages']} {found['programs']}")
    expect(found["writable"] == ["/tmp"], f"can be written: {found['writable']}")  # noqa: S108
    expect(found["state_owner"] == found["uid"], f"/state belongs to {found['state_owner']}")
    expect(not found["raising"], f"set-user-id: {found['raising']}")
    wanted = "onnxruntime" if device == "cpu" else "onnxruntime-gpu"
    expect(found["runtimes"] == [wanted], f"runtimes are {found['runtimes']}")
    size = round(found["bytes"] / 2**20)
    expect(size <= LARGEST_MIB[device], f"{size} MiB, more than {LARGEST_MIB[device]}")
    say(f"{size} MiB; no torch, pip, compiler; only /tmp can be written")
    return {"image_mib": size}


def check_commands(builder: Builder, scratch: Path) -> None:
    """The commands without a network, and a mounted folder that holds no bundle."""
    expect(VERSION in output(builder, ["sar-classify", "--version"]), "sar-classify --version without version")
    drawn = output(builder, ["python", "-c", DRAW]).strip()
    answer = json.loads(output(builder, ["python", "-c", CLASSIFY, drawn]))
    expect(answer["error"] is None and answer["predictions"][0]["label"], f"sar-classify: {answer}")
    (scratch / "empty").mkdir()
    refused = builder.run(["sar-serve"], bundle=scratch / "empty")
    expect(
        refused.returncode == 2 and "manifest.json" in refused.stderr,
        f"empty bundle: exit {refused.returncode}\n{refused.stderr}",
    )
    shutil.copytree(ROOT / "exports" / "mini", scratch / "bundle")
    checked = builder.run(["sar-serve", "--check"], bundle=scratch / "bundle")
    expect(checked.returncode == 0, f"mounted bundle: exit {checked.returncode}\n{checked.stderr}")
    say("sar-classify works; a mounted bundle is served, an empty one refused")


def check_server(builder: Builder) -> dict[str, Any]:
    """From start to ready, one photo, the health check, and a stop while a request is on its way.

    Raises:
        SystemExit: one of them is not as it should be.
    """
    port = free_port()
    started = time.monotonic()
    server = builder.start(port)
    ready = wait_ready(port, started)
    if ready is None:
        server.terminate()
        raise SystemExit(f"not ready after {READY_SECONDS} s\n{server.wait()[1]}")
    idle = server.resident_kib()
    expect(server.healthy(), "the health check fails in a server that is ready")
    photo, names, label = a_photo(builder)
    path = "/v1/classify?top_k=1" + "".join(f"&classes={name}" for name in names) + ("&mode=only" if names else "")
    status, answer = ask(port, "POST", path, photo)
    expect(status == 200, f"classify: {status} {answer!r}")
    top = json.loads(answer)["results"][0]["predictions"][0]["label"]
    expect(label in (None, top), f"classified as {top}, not {label}")
    say(f"ready in {ready:.2f} s, {idle / 1024:.0f} MiB resident; a photo is {top!r}")
    stop = check_stop(server, port, photo)
    return {"ready_seconds": round(ready, 2), "idle_mib": round(idle / 1024), "stop_seconds": round(stop, 2)}


def check_stop(server: Server, port: int, photo: bytes) -> float:
    """Seconds from SIGTERM to the end; a request whose body is half sent by then is still answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(len(photo)))
    connection.endheaders(photo[: len(photo) // 2])
    time.sleep(0.3)
    server.terminate()
    stopping = time.monotonic()
    time.sleep(0.5)
    connection.send(photo[len(photo) // 2 :])
    status = connection.getresponse().status
    code, log = server.wait()
    seconds = time.monotonic() - stopping
    expect(status == 200, f"a request under way at SIGTERM got {status}\n{log}")
    expect(code == 0, f"exit code {code} after SIGTERM\n{log}")
    say("SIGTERM: the request under way was answered, exit code 0")
    return seconds


def wait_ready(port: int, started: float) -> float | None:
    """Seconds until /readyz answers 200; None where that takes too long."""
    while time.monotonic() - started < READY_SECONDS:
        try:
            if ask(port, "GET", "/readyz")[0] == 200:
                return time.monotonic() - started
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    return None


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/octet-stream"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def a_photo(builder: Builder) -> tuple[bytes, list[str], str | None]:
    """A picture, names to choose from and the right one: scikit-image's cat, or one drawn in the image."""
    package = find_spec("skimage")
    photo = Path(package.origin or "").parent / "data" / "chelsea.png" if package else None
    if photo and photo.is_file():
        return photo.read_bytes(), ["espresso", "rocket", "tabby"], "tabby"
    import base64

    return base64.b64decode(output(builder, ["python", "-c", DRAW])), [], None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def output(builder: Builder, command: list[str]) -> str:
    """Standard output of a command in the image that has to succeed."""
    done = builder.run(command)
    expect(done.returncode == 0, f"{command[:2]} in the image: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(met: object, complaint: str) -> None:
    """Stop with the complaint unless the condition is met.

    Raises:
        SystemExit: it is not.
    """
    if not met:
        raise SystemExit(complaint)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    return "\n".join(f"{key.replace('_', ' '):16}{'-' if value is None else value}" for key, value in figures.items())


if __name__ == "__main__":
    raise SystemExit(main())
