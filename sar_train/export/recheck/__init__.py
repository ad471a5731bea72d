"""A bundle's passport again, with what is installed now: what moved, and whether it moved too far. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sar_infer.artefact.bundle import open_bundle
from sar_train.export.recheck import graphs, installed, photos
from sar_train.export.recheck.finding import Finding


def recheck(
    path: Path, found: photos.Photos | None = None, advance: Callable[[int], None] = lambda _: None
) -> list[Finding]:
    """Open a bundle strictly and measure it again.

    Args:
        path: The bundle.
        found: Photos to try; None does without.
        advance: Is called with the number of photos done since the last call.

    Raises:
        BundleError: it is damaged or of another version.
        ExportError: it has no probe.
        ImageError: a photo cannot be read.
    """
    bundle = open_bundle(path)
    lines = [*installed.versions(bundle.manifest.provenance.versions), *graphs.checks(bundle)]
    return lines if found is None else [*lines, *photos.checks(bundle, found, advance)]


def moved(lines: list[Finding]) -> bool:
    """Whether anything is beyond its bound."""
    return any(line.verdict == "moved" for line in lines)
