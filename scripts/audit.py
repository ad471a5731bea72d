"""Ask a vulnerability database about every package that is installed beside the interpreter that runs this.

The client is pip-audit, in an environment of its own (build/audit), so that nothing is added to the one it looks at. It
asks PyPI's database and, where that does not answer, OSV's. Exit code 0: no package has a known vulnerability; 1: some
have, and are listed; 2: no database could be reached, so nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "build" / "audit"
SERVICES = ("pypi", "osv")
NOT_AUDITED = (
    "not audited: neither PyPI's vulnerability database nor OSV's answers from here; "
    "run `make audit` on a machine with network"
)
LONGEST = 600
"""Seconds for all packages at one database."""


def main() -> int:
    """Audit, print the verdict, and return the exit code."""
    client = install()
    reports = (report(client, service) for service in SERVICES) if client else ()
    lines, code = next((verdict(packages) for packages in reports if packages), ([NOT_AUDITED], 2))
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


def install() -> Path | None:
    """Return the client, installed now if it was not before; None where it cannot be had."""
    folder = HOME / ("Scripts" if sys.platform == "win32" else "bin")
    client = folder / "pip-audit"
    if not client.exists():
        venv.create(HOME, with_pip=True, clear=True)
        requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"][
            "audit"
        ]
        command = [folder / "python", "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(command, capture_output=True, check=False)
    return client if client.exists() else None


def report(client: Path, service: str) -> Sequence[dict[str, Any]] | None:
    """Return one database's report on each package, in pip-audit's form; None where it answers for none."""
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    folders = [argument for path in paths for argument in ("--path", path)]
    options = ["--skip-editable", "--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
    try:
        done = subprocess.run(
            [client, *folders, *options], capture_output=True, text=True, timeout=LONGEST, check=False
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None
    return packages if any("vulns" in package for package in packages) else None


def verdict(packages: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """Return the lines to print and the exit code; packages that the database does not know are named."""
    audited = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {hole['id']}"
        + (f" (mended in {', '.join(hole['fix_versions'])})" if hole["fix_versions"] else " (not mended yet)")
        for package in audited
        for hole in package["vulns"]
    ]
    unknown = [package["name"] for package in packages if "vulns" not in package]
    summary = f"{len(audited)} packages audited, {len(lines)} known vulnerabilities"
    return [*lines, summary + (f"; not in the database: {', '.join(unknown)}" if unknown else "")], int(bool(lines))


if __name__ == "__main__":
    raise SystemExit(main())
