"""Let pip resolve every extra of the project without pins, as a user does, and say how many releases it had to try.

    python scripts/resolve.py [EXTRA ...]

pip learns what a release requires by downloading it, so it searches long where two packages seldom agree on a third.
How many releases it downloaded and dropped does not depend on the machine, as seconds do. Exit code 1 if an extra made
it drop more than ``MOST``. Nothing is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST = 12
"""Releases that pip may drop. Each costs it a second or so; a search that has lost its way drops hundreds."""
LONGEST = 900
"""Seconds for one extra, so that such a search ends."""
_DOWNLOAD = re.compile(
    r"^\s+(?:Downloading|Using cached) (?P<name>\w[\w.]*(?:-[A-Za-z]\w*)*)-(?P<version>\d[^-\s]*?)(?:-|\.tar\.gz)",
    re.MULTILINE,
)


def main() -> int:
    """Resolve the extras that are named, or all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print(f"pip {version('pip')}", flush=True)
    failures = [extra for extra in sys.argv[1:] or project["optional-dependencies"] if not resolve(extra)]
    if failures:
        print(f"pip has to search for {', '.join(failures)}: raise lower bounds, or drop a package", file=sys.stderr)
    return int(bool(failures))


def resolve(extra: str) -> bool:
    """Resolve one extra, print a line, and return True if pip found versions and dropped no more than ``MOST``."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--report", str(report)]
        environment = {key: value for key, value in os.environ.items() if "CONSTRAINT" not in key}
        with Path(folder, "log").open("w+", encoding="utf-8") as log:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*command, f"{ROOT}[{extra}]"],
                    env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=LONGEST, check=False,
                )  # fmt: skip
            log.seek(0)
            printed = log.read()
        chosen = installed(json.loads(report.read_text(encoding="utf-8"))) if report.exists() else None
    seconds = f"{extra:<12}{time.monotonic() - started:4.0f} s"
    if chosen is None:
        print(f"{seconds}  no versions found: {printed.strip().splitlines()[-1]}", flush=True)
        return False
    dropped = [f"{name} {version}" for name, version in sorted(tried(printed) - chosen)]
    print(f"{seconds}  {len(chosen)} packages, {len(dropped)} other releases tried {', '.join(dropped)}", flush=True)
    return len(dropped) <= MOST


def tried(printed: str) -> set[tuple[str, str]]:
    """Return name and version of each release that pip downloaded, whole or its metadata, by what it printed."""
    return {(normal(match["name"]), match["version"]) for match in _DOWNLOAD.finditer(printed)}


def installed(report: Mapping[str, list[Mapping[str, Mapping[str, str]]]]) -> set[tuple[str, str]]:
    """Return name and version of each release in pip's report."""
    return {(normal(item["metadata"]["name"]), item["metadata"]["version"]) for item in report["install"]}


def normal(name: str) -> str:
    """Return a package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    raise SystemExit(main())
