"""Measure a bundle again with what is installed now: what moved, and whether it moved too far. Needs no torch."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sar_infer.artefact.bundle import open_bundle
from sar_train.export.recheck import graphs, photos
from sar_train.export.recheck.finding import Finding


def recheck(
    path: Path, found: photos.Photos | None = None, advance: Callable[[int], None] = lambda _: None
) -> list[Finding]:
    """Open a bundle strictly and measure it again.

    Args:
        path: The bundle.
        found: Photos to try, or None.
        advance: Called with the number of photos done since the last call.

    Raises:
        BundleError: it is damaged or of another version.
        ExportError: it has no probe.
        ImageError: a photo cannot be read.
    """
    bundle = open_bundle(path)
    lines = [*versions(bundle.manifest.provenance.versions), *graphs.checks(bundle)]
    return lines if found is None else [*lines, *photos.checks(bundle, found, advance)]


def moved(lines: list[Finding]) -> bool:
    """Say whether anything is beyond its bound."""
    return any(line.verdict == "moved" for line in lines)


ABSENT = "not installed"


def versions(then: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a line for each package whose version changed, and one that counts the others.

    Versions have no bound, as their effect is measured.
    """
    now = {package: installed(package) for package in then}
    changed = [package for package in then if then[package] != now[package]]
    for package in changed:
        yield Finding(f"version of {package}", then[package], now[package], "changed")
    unchanged = f"{len(then) - len(changed)} of {len(then)}"
    yield Finding("versions that are the same", None, unchanged, "noted")


def installed(package: str) -> str:
    """Return the version in this environment; onnxruntime goes by several names."""
    if package == "python":
        return platform.python_version()
    if package == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT
