"""Measure a bundle again with what is installed now: what moved, and whether it moved too far."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from sar_infer.bundle.bundle import Place, open_bundle
from sar_infer.bundle_check import graphs, photos
from sar_infer.bundle_check.finding import Check


def verify_bundle(
    location: Place,
    labelled_photos: photos.LabelledPhotos | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Check]:
    """Open a bundle strictly and measure it again.

    Args:
        location: The bundle.
        labelled_photos: Photos to try, or None.
        advance: Called with the number of photos done since the last call.

    Raises:
        BundleError: it is damaged, of another version, or has no self-test.
        InputError: the photos cannot be used for any check.
        ImageError: a photo cannot be read.
    """
    bundle = open_bundle(location)
    lines = [*versions(bundle.manifest.provenance.versions), *graphs.checks(bundle)]
    return lines if labelled_photos is None else [*lines, *photos.checks(bundle, labelled_photos, advance)]


def moved(lines: list[Check]) -> bool:
    """Say whether anything is beyond its bound."""
    return any(line.verdict == "moved" for line in lines)


ABSENT = "not installed"


def versions(then: Mapping[str, str]) -> Iterator[Check]:
    """Yield a line for each package whose version changed, and one that counts the others.

    Versions have no bound, as their effect is measured.
    """
    now = {package: installed(package) for package in then}
    changed = [package for package in then if then[package] != now[package]]
    for package in changed:
        yield Check(f"version of {package}", then[package], now[package], "changed")
    unchanged = f"{len(then) - len(changed)} of {len(then)}"
    yield Check("versions that are the same", None, unchanged, "noted")


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
