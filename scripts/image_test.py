"""Build the container image, look into it and use it as a user does. ``.ci/image`` calls this, having found a tool.

Works with Docker and podman, whose commands are the same. The settings that pip has on this machine reach the build as
secrets. Prints what it measured; the image is removed.
"""

from __future__ import annotations

import argparse
import ast
import base64
import http.client
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SANDBOX = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108
KEY = "of-the-image-test"
LARGEST_MIB = {"cpu": 400, "cuda": 3000}
LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, os
size, files, seen, writable = 0, 0, set(), []
for folder, below, names in os.walk('/'):
    below[:] = [name for name in below if os.path.join(folder, name) not in ('/proc', '/sys', '/dev')]
    if os.access(folder, os.W_OK):
        writable.append(folder)
    for about in (os.lstat(os.path.join(folder, name)) for name in names):
        files += 1
        size += 0 if about.st_ino in seen else about.st_size
        seen.add(about.st_ino)
print(json.dumps({
    'uid': os.getuid(), 'pid': os.getpid(), 'state_owner': os.stat('/state').st_uid, 'writable': writable,
    'training': [name for name in ('torch', 'torchvision', 'open_clip', 'timm', 'onnx') if util.find_spec(name)],
    'runtimes': sorted(d.name for d in metadata.distributions() if d.name.startswith('onnxruntime')),
    'secrets': [path for path in ('/etc/pip.conf', '/run/secrets') if os.path.exists(path)],
    'bytes': size, 'files': files,
}))
"""
IMPORT = """
import pathlib, sys
sys.path.insert(0, 'tests')
from support import towers
from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle
from sar_train.cli.importing import main
from sar_infer.encoders.gate import shipped_photos
names, folder = [*shipped_photos()], pathlib.Path(sys.argv[1])
towers.shipped_image_tower(folder / 'onnx/vision_model.onnx')
towers.write_json(folder / 'preprocessor_config.json', towers.CLIP_PROCESSOR)
towers.bag_of_words(folder, names, Classifier.open(default_bundle()).embed_names(names), 'onnx/text_model.onnx')
main([str(folder), '--out', sys.argv[2], '-q'])
"""
"""Towers with a tokenizer.json become a bundle."""
DRAW = """
import base64, io
from PIL import Image
Image.radial_gradient('L').convert('RGB').resize((320, 240)).save(kept := io.BytesIO(), 'PNG')
print(base64.b64encode(kept.getvalue()).decode())
"""


def main() -> int:
    """Build, check, measure; return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description="Build the container image and test it.")
    parser.add_argument("--tool", choices=["docker", "podman"], default="docker")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--base", help="base image instead of the Dockerfile's")
    args = parser.parse_args()
    image = Image(args.tool, f"localhost/sar-clip-test:{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="sar-image-") as scratch:
        try:
            figures: dict[str, Any] = {"tool": args.tool, "device": args.device, "base": args.base or "Dockerfile's"}
            figures["build_seconds"] = image.build(args.device, args.base, pip_secrets(Path(scratch)))
            figures |= check_contents(image, args.device)
            check_commands(image, Path(scratch))
            figures["imported"] = check_imported(image, Path(scratch))
            figures |= check_server(image)
        finally:
            image.remove()
    print("\n".join(f"{key.replace('_', ' '):16}{value}" for key, value in figures.items()))
    return 0


class Image:
    """One image, and one container that serves from it."""

    def __init__(self, tool: str, tag: str) -> None:
        self.tool, self.tag = tool, tag
        self.container = self.volume = f"sar-clip-{os.getpid()}"
        self.sandbox = (*SANDBOX, *(["--read-only-tmpfs=false"] if tool == "podman" else []))  # or more is writable

    def call(self, *arguments: str) -> str:
        """Return what a command of the tool printed.

        Raises:
            SystemExit: It failed; its output is shown.
        """
        done = subprocess.run([self.tool, *arguments], capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{self.tool} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def build(self, device: str, base: str | None, secrets: dict[str, Path]) -> float:
        """Build the Dockerfile and return the seconds that it took."""
        options = ["--build-arg", f"DEVICE={device}", *(["--build-arg", f"BASE_IMAGE={base}"] if base else [])]
        options += [argument for name, path in secrets.items() for argument in ("--secret", f"id={name},src={path}")]
        started = time.monotonic()
        self.call("build", *options, "--tag", self.tag, str(ROOT))
        return round(time.monotonic() - started, 1)

    def run(self, *command: str, bundle: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command in a container without a network."""
        mount = ["--volume", f"{bundle}:/bundle:ro"] if bundle else []
        options = ["--rm", "--interactive", "--network", "none", *self.sandbox, *mount, "--entrypoint", command[0]]
        whole = [self.tool, "run", *options, self.tag, *command[1:]]
        return subprocess.run(whole, input=stdin, capture_output=True, check=False, timeout=120)

    def output(self, *command: str, stdin: bytes = b"") -> str:
        """Return what a command in a container printed; it has to succeed."""
        done = self.run(*command, stdin=stdin)
        expect(done.returncode == 0, f"{command[:2]} in the image: exit {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode()

    def start(self, port: int) -> None:
        """Start the server on this port of the loopback interface, with a key, and a bank file on a volume."""
        settings = [f"SAR_PORT={port}", f"SAR_API_KEY={KEY}", "SAR_BANK=/state/bank.safetensors"]
        options = [argument for setting in settings for argument in ("--env", setting)]
        options += ["--publish", f"127.0.0.1:{port}:{port}", "--volume", f"{self.volume}:/state"]
        self.call("run", "--detach", "--name", self.container, *self.sandbox, *options, self.tag)

    def logs(self) -> str:
        """Return what the server logged."""
        done = subprocess.run([self.tool, "logs", self.container], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Remove the container, its volume and the image, whichever are there."""
        for arguments in (
            ["rm", "--force", self.container], ["volume", "rm", self.volume], ["image", "rm", self.tag]
        ):  # fmt: skip
            subprocess.run([self.tool, *arguments], capture_output=True, check=False)


def pip_secrets(scratch: Path) -> dict[str, Path]:
    """Return pip's configuration on this machine as build secrets; files that it names are secrets too."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    for line in sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # the environment is last
        key, _, value = line.partition("=")
        if re.search(r"\.(cert|constraint|.*index-url|no-index|proxy|timeout|trusted-host)$", key):
            settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    secrets = {}
    for key, name in (("cert", "ca.pem"), ("constraint", "constraints.txt")):
        if Path(settings.get(key, "")).is_file():
            secrets[name] = Path(settings[key])
            settings[key] = f"/run/secrets/{name}"
    if settings:
        secrets["pip.conf"] = scratch / "pip.conf"
        secrets["pip.conf"].touch(0o600)
        secrets["pip.conf"].write_text("\n".join(["[global]", *(f"{k} = {v}" for k, v in settings.items()), ""]))
    return secrets


def check_contents(image: Image, device: str) -> dict[str, Any]:
    """Check that nothing to train with is in it, no secret of the build, and nowhere to write but /tmp."""
    contents = json.loads(image.output("python", "-c", LOOK))
    expect(contents["uid"] > 0 and contents["pid"] == 1, f"ran as {contents['uid']}, process {contents['pid']}")
    expect(not contents["training"], f"in the image: {contents['training']}")
    expect(not contents["secrets"], f"in the image: {contents['secrets']}")
    expect(contents["writable"] == ["/tmp"], f"can be written: {contents['writable']}")  # noqa: S108
    expect(contents["state_owner"] == contents["uid"], f"/state belongs to {contents['state_owner']}")
    runtime = "onnxruntime" if device == "cpu" else "onnxruntime-gpu"
    expect(contents["runtimes"] == [runtime], f"runtimes are {contents['runtimes']}")
    size = round(contents["bytes"] / 2**20)
    expect(size <= LARGEST_MIB[device], f"{size} MiB, more than {LARGEST_MIB[device]}")
    return {"image_mib": size, "files": contents["files"]}


def check_commands(image: Image, scratch: Path) -> None:
    """Check the commands without a network, and a mounted folder that holds no bundle."""
    answer = json.loads(image.output("sar-classify", "-", "--format", "jsonl", stdin=drawn(image)))
    expect(answer["error"] is None and answer["predictions"][0]["label"], f"sar-classify: {answer}")
    (scratch / "empty").mkdir(mode=0o755)
    refused = image.run("sar-serve", bundle=scratch / "empty")
    expect(
        refused.returncode == 2 and b"manifest.json" in refused.stderr,
        f"empty bundle: exit {refused.returncode}\n{refused.stderr.decode()}",
    )
    training = image.run("sar-train", "photos")
    expect(training.returncode and b"[train]" in training.stderr, f"sar-train: {training.stderr.decode()}")


def check_imported(image: Image, scratch: Path) -> str:
    """Check that a bundle of published towers gets new names in the image; it is made here, in CI's environment."""
    if not all(map(importlib.util.find_spec, ("onnx", "open_clip", "sar_train", "tokenizers"))):
        return "not tested: no development environment"
    bundle = scratch / "imported"
    command = [sys.executable, "-c", IMPORT, str(scratch / "towers"), str(bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"sar-bundle import: {done.stderr}")
    command = ["sar-classify", "-", "--classes", "cat,shoe", "--only", "--format", "jsonl"]
    answer = image.run(*command, bundle=bundle, stdin=drawn(image))
    expect(answer.returncode == 0, f"sar-classify on an imported bundle: {answer.stderr.decode()}")
    expect(
        json.loads(answer.stdout)["predictions"][0]["label"] in ("cat", "shoe"),
        f"an imported bundle: {answer.stdout!r}",
    )
    return "new names encoded"


def check_server(image: Image) -> dict[str, Any]:
    """Check a server from start to stop: readiness, one image, one class added."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    photo = drawn(image)
    started = time.monotonic()
    image.start(port)
    while status(port, "GET", "/readyz") != 200:
        expect(time.monotonic() - started < 60, f"not ready after a minute\n{image.logs()}")
        time.sleep(0.02)
    ready = time.monotonic() - started
    for method, path, body, expected in (
        ("GET", "/healthz", None, 200),
        ("POST", "/v1/classify", photo, 200),
        ("PUT", "/v1/classes/latte%20art", None, 201),
        ("POST", "/v1/classify?classes=latte%20art&mode=only", photo, 200),
    ):
        answer = status(port, method, path, body)
        expect(answer == expected, f"{method} {path}: {answer}\n{image.logs()}")
    image.call("exec", image.container, "test", "-s", "/state/bank.safetensors")
    stopping = time.monotonic()
    image.call("kill", "--signal", "TERM", image.container)
    code = image.call("wait", image.container).strip()
    expect(code == "0", f"exit code {code} after SIGTERM\n{image.logs()}")
    return {"ready_seconds": round(ready, 2), "stop_seconds": round(time.monotonic() - stopping, 2)}


def status(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Return the status of an answer, 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers(body))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0


def headers(body: bytes | None) -> dict[str, str]:
    """Return the key and, with a body, its type."""
    return {"Authorization": f"Bearer {KEY}"} | ({"Content-Type": "application/octet-stream"} if body else {})


def drawn(image: Image) -> bytes:
    """Return a PNG that the image itself draws."""
    return base64.b64decode(image.output("python", "-c", DRAW))


def expect(met: object, complaint: str) -> None:
    """Stop with the complaint unless the condition is met.

    Raises:
        SystemExit: It is not.
    """
    if not met:
        raise SystemExit(complaint)


if __name__ == "__main__":
    raise SystemExit(main())
