"""A new bundle from one that is there: the same encoder and bank, with smaller graphs or a policy for large JPEGs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sar_infer.artefact import CARD, Manifest, Provenance
from sar_infer.bundle import Bundle, open_bundle
from sar_infer.sealing import seal
from sar_infer.staging import staged
from sar_train.errors import ExportError
from sar_train.export.precision import jpeg, variants
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.samples import Photos
from sar_train.export.precision.variants import Attempt
from sar_train.record import versions

JPEG_TABLE, PRECISION_TABLE = "jpeg_margin", "precision"
"""Keys of ``passport.tables``."""


@dataclass(frozen=True)
class Wanted:
    """What a bundle is to get.

    Attributes:
        gates: bounds by precision, one for each that is wanted.
        jpeg_margin: of ``Preprocess``; None leaves the policy as it is.
    """

    gates: Mapping[str, Gate] = field(default_factory=dict)
    jpeg_margin: float | None = None


@dataclass(frozen=True)
class Derived:
    """What was written, and what came of each part that was asked for, in words for the user."""

    manifest: Manifest
    attempts: tuple[Attempt, ...]
    lines: tuple[str, ...]


def derive(
    source: Path,
    out: Path,
    wanted: Wanted,
    photos: Photos,
    *,
    command: str,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Derived:
    """Write a new bundle; the parts that miss their gate are left out, the rest is written.

    Files that stay the same are hard links where the file system has them.

    Args:
        source: the bundle; ``out`` may be the same with ``overwrite``.
        out: the new folder.
        wanted: what to add.
        photos: to calibrate and judge with.
        command: how this was asked for, for the manifest.
        overwrite: replace a bundle that is there.
        tell: is called with a line of progress now and then.

    Raises:
        ExportError: nothing that was asked for passed; nothing was changed.
        BundleError: the source is damaged.
        ImageError: a photo cannot be read.
        WriteError: the folder cannot be written.
    """
    bundle = open_bundle(source)
    with staged(out, overwrite=overwrite) as folder:
        for name in bundle.manifest.files:
            if name != CARD:
                _link(bundle.path / name, folder / name)
        made = variants.make(bundle, folder, wanted.gates, photos, tell) if wanted.gates else []
        policy, lines = _policy(bundle, wanted, photos, tell)
        lines = [*map(_line, made), *lines]
        if policy is None and not variants.kept(made):
            raise ExportError(f"nothing that was asked for passed: {'; '.join(lines)}; nothing was changed")
        manifest = seal(folder, _manifest(bundle, made, policy, photos, command), bundle.bank)
        open_bundle(folder)
    return Derived(manifest, tuple(made), tuple(lines))


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # another file system, or one without links
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)


def _policy(
    bundle: Bundle, wanted: Wanted, photos: Photos, tell: Callable[[str], None]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Figures of the JPEG policy, None where it is not wanted or fails, and what to say about it."""
    if wanted.jpeg_margin is None:
        return None, []
    tell("decoding large JPEGs at reduced scale")
    found, own = jpeg.judged(bundle, wanted.jpeg_margin, photos.judging)
    failures = jpeg.JPEG_GATE.failures(found)
    line = (
        f"jpeg margin {wanted.jpeg_margin:g}: {found.samples} photos ({own} as they are, the others enlarged), "
        f"cosine {found.mean_cosine:.5f} on average, {found.min_cosine:.5f} on the worst, same class "
        f"{found.top1_agreement:.1%}: " + (f"left out ({'; '.join(failures)})" if failures else "kept")
    )
    figures = dataclasses.asdict(found) | {"margin": wanted.jpeg_margin, "as_they_are": own}
    return (None if failures else figures), [line]


def _manifest(
    bundle: Bundle, made: list[Attempt], policy: dict[str, Any] | None, photos: Photos, command: str
) -> Manifest:
    before = bundle.manifest
    tables = dict(before.passport.tables)
    kept = variants.kept(made)
    if kept:
        tables[PRECISION_TABLE] = {"calibration": len(photos.calibration), "judging": len(photos.judging)}
    if policy:
        tables[JPEG_TABLE] = policy
    precisions = dict(before.precisions)
    for precision in {attempt.precision for attempt in made}:
        precisions.pop(precision, None)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return dataclasses.replace(
        before,
        precisions=precisions | kept,
        preprocess=jpeg.reduced(before.preprocess, policy["margin"]) if policy else before.preprocess,
        passport=dataclasses.replace(before.passport, tables=tables),
        provenance=Provenance(now, command, {**before.provenance.versions, **versions()}, before.provenance.licences),
    )


def _line(attempt: Attempt) -> str:
    what, variant = f"{attempt.precision} {attempt.encoder} encoder", attempt.variant
    if variant is None:
        return f"{what}: left out ({'; '.join(attempt.failures)})"
    verdict = f"left out ({'; '.join(attempt.failures)})" if attempt.failures else "kept"
    kind = "photos" if attempt.encoder == "image" else "names"
    return (
        f"{what}: {variant.method}, {variant.samples:,} {kind}, cosine {variant.mean_cosine:.5f} on average, "
        f"{variant.min_cosine:.5f} on the worst, same class {variant.top1_agreement:.1%}, {variant.speedup:.2f} times "
        f"as fast: {verdict}"
    )
