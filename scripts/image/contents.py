"""What an image declares, what is in it, and its commands without a network."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from scripts.image.builder import Builder, Config
from scripts.image.expecting import expect, output, say

LARGEST_MIB = {"cpu": 400, "cuda": 8000}
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


def check_commands(builder: Builder, root: Path, version: str, scratch: Path) -> None:
    """The commands without a network, and a mounted folder that holds no bundle."""
    expect(version in output(builder, ["sar-classify", "--version"]), "sar-classify --version without version")
    answer = json.loads(output(builder, ["python", "-c", CLASSIFY, drawn(builder)]))
    expect(answer["error"] is None and answer["predictions"][0]["label"], f"sar-classify: {answer}")
    (scratch / "empty").mkdir()
    refused = builder.run(["sar-serve"], bundle=scratch / "empty")
    expect(
        refused.returncode == 2 and "manifest.json" in refused.stderr,
        f"empty bundle: exit {refused.returncode}\n{refused.stderr}",
    )
    shutil.copytree(root / "exports" / "mini", scratch / "bundle")
    checked = builder.run(["sar-serve", "--check"], bundle=scratch / "bundle")
    expect(checked.returncode == 0, f"mounted bundle: exit {checked.returncode}\n{checked.stderr}")
    say("sar-classify works; a mounted bundle is served, an empty one refused")


def drawn(builder: Builder) -> str:
    """A picture that the image itself draws, in base64."""
    return output(builder, ["python", "-c", DRAW]).strip()
