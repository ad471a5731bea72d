"""Versions when a bundle was made, and now."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from sar_train.export.recheck.finding import Finding

ABSENT = "not installed"


def versions(then: Mapping[str, str]) -> Iterator[Finding]:
    """A line for each package that has another version now, and one that counts the others.

    A version has no bound: what it moved is measured.
    """
    now = {package: installed(package) for package in then}
    changed = [package for package in then if then[package] != now[package]]
    for package in changed:
        yield Finding(f"version of {package}", then[package], now[package], "changed")
    unchanged = f"{len(then) - len(changed)} of {len(then)}"
    yield Finding("versions that are the same", None, unchanged, "noted")


def installed(package: str) -> str:
    """The version in this environment; onnxruntime goes by several names."""
    if package == "python":
        return platform.python_version()
    if package == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT
