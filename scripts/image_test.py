"""Build the container image, look into it, and use it the way a user does: ``python3 -m scripts.image_test``.

Takes Docker, podman or, as root, buildah, whichever is there. A base is pulled; where no registry answers, ``--rootfs``
names a folder tree to use instead, or debootstrap makes one. The settings that pip has on this machine reach the build
as secrets, and no layer. Needs nothing but Python. Prints a table, or with ``--json`` the same as JSON on standard
output; images and containers are removed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.image.buildah import Buildah
from scripts.image.builder import Builder, UnavailableError, succeeds
from scripts.image.contents import check_commands, check_config, check_contents
from scripts.image.docker import Docker
from scripts.image.expecting import say
from scripts.image.pip_settings import pip_settings
from scripts.image.serving import check_server

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DEBOOTSTRAP_SECONDS = 300


def main() -> int:
    """Build, check, measure; return 0 if all checks passed."""
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
    """Return the named tool, else the first that works.

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
    """Run the whole test and return the measurements."""
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
    check_commands(builder, ROOT, VERSION, scratch)
    figures |= check_server(builder)
    figures["whole_seconds"] = round(time.monotonic() - started, 1)
    return figures


def find_base(builder: Builder, rootfs: Path | None, scratch: Path) -> str | None:
    """Build a base image from a folder tree; return None where the Dockerfile's own can be pulled.

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
    """Return the commit, where this is a checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a table."""
    return "\n".join(f"{key.replace('_', ' '):16}{'-' if value is None else value}" for key, value in figures.items())


if __name__ == "__main__":
    raise SystemExit(main())
