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

from sar_infer.artefact.bundle import Bundle, open_bundle
from sar_infer.artefact.manifest import CARD, Manifest, Provenance
from sar_infer.artefact.writing import seal, staged
from sar_train.export.precision import jpeg, variants
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.jpeg import Policy
from sar_train.export.precision.outcome import NothingPassedError, Outcome
from sar_train.export.precision.samples import Photos
from sar_train.training.record import versions

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
    """What was written, and what came of each part that was asked for."""

    manifest: Manifest
    outcome: Outcome


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
        NothingPassedError: nothing that was asked for passed; nothing was changed.
        BundleError: the source is damaged.
        ImageError: a photo cannot be read.
        WriteError: the folder cannot be written.
    """
    bundle = open_bundle(source)
    with staged(out, overwrite=overwrite) as folder:
        for name in bundle.manifest.files:
            if name != CARD:
                _link(bundle.path / name, folder / name)
        outcome = _outcome(bundle, folder, wanted, photos, tell)
        if _kept(outcome.policy) is None and not variants.kept(outcome.attempts):
            stays = f"{source} stays as it is" + ("" if out == source else f", and {out} was not written")
            raise NothingPassedError(f"nothing that was asked for passed: {'; '.join(outcome.lines)}; {stays}", outcome)
        manifest = seal(folder, _manifest(bundle, outcome, photos, command), bundle.bank)
        open_bundle(folder)
    return Derived(manifest, outcome)


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # another file system, or one without links
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)


def _outcome(bundle: Bundle, folder: Path, wanted: Wanted, photos: Photos, tell: Callable[[str], None]) -> Outcome:
    """What passes, in the folder."""
    policy = None
    if wanted.jpeg_margin is not None:
        tell("decoding large JPEGs at reduced scale")
        policy = jpeg.judged(bundle, wanted.jpeg_margin, photos.judging)
    made = variants.make(bundle, folder, wanted.gates, photos, tell) if wanted.gates else []
    return Outcome(tuple(made), policy)


def _kept(policy: Policy | None) -> Policy | None:
    return None if policy is None or policy.failures else policy


def _manifest(bundle: Bundle, outcome: Outcome, photos: Photos, command: str) -> Manifest:
    before, policy = bundle.manifest, _kept(outcome.policy)
    tables = dict(before.passport.tables)
    kept = variants.kept(outcome.attempts)
    if kept:
        tables[PRECISION_TABLE] = {"calibration": len(photos.calibration), "judging": len(photos.judging)}
    if policy and policy.figures:
        tables[JPEG_TABLE] = dataclasses.asdict(policy.figures) | {"margin": policy.margin}
    precisions = dict(before.precisions)
    for precision in {attempt.precision for attempt in outcome.attempts}:
        precisions.pop(precision, None)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return dataclasses.replace(
        before,
        precisions=precisions | kept,
        preprocess=jpeg.reduced(before.preprocess, policy.margin) if policy else before.preprocess,
        passport=dataclasses.replace(before.passport, tables=tables),
        provenance=Provenance(now, command, {**before.provenance.versions, **versions()}, before.provenance.licences),
    )
