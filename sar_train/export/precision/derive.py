"""Derive a bundle from another: the same encoder and bank, with smaller graphs or a policy for large JPEGs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sar_infer.bundle.bundle import Bundle, Place, open_bundle
from sar_infer.bundle.manifest import CARD, Manifest, Provenance
from sar_infer.bundle.writing import link_or_copy, seal, staged
from sar_train.errors import ExportError
from sar_train.export.precision import jpeg, variants
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.jpeg import Policy
from sar_train.export.precision.samples import PhotoSamples
from sar_train.export.precision.variants import Attempt
from sar_train.training.record import versions

JPEG_TABLE, PRECISION_TABLE = "jpeg_margin", "precision"
"""Keys of ``quality.tables``."""


def derive(
    source: Place,
    out: Path,
    photos: PhotoSamples,
    *,
    gates: Mapping[str, Gate] | None = None,
    jpeg_margin: float | None = None,
    command: str,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, DerivedParts]:
    """Write a new bundle with every part that passes its gate; the others are left out.

    Files that stay the same become hard links if the file system has them.

    Args:
        source: the bundle; may be the same as ``out`` with ``overwrite``.
        out: the new folder.
        photos: to calibrate and evaluate with.
        gates: bounds for each precision that is asked for.
        jpeg_margin: as in ``Preprocess``; None leaves the policy as it is.
        command: the command line, for the manifest.
        overwrite: replace a bundle that is there.
        tell: called with lines of progress.

    Returns:
        The manifest that was written, and the result for each part that was asked for.

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
                link_or_copy(bundle.path / name, folder / name)
        policy = None
        if jpeg_margin is not None:
            tell("decoding large JPEGs at reduced scale")
            policy = jpeg.judged(bundle, jpeg_margin, photos.judging)
        made = variants.make(bundle, folder, gates, photos, tell) if gates else []
        outcome = DerivedParts(tuple(made), policy)
        if _kept(policy) is None and not variants.kept(outcome.attempts):
            stays = f"{source} stays as it is" + ("" if out == Path(source) else f", and {out} was not written")
            raise ExportError(f"nothing that was asked for passed: {'; '.join(outcome.lines)}; {stays}")
        manifest = seal(folder, _manifest(bundle, outcome, photos, command), bundle.bank)
        open_bundle(folder)
    return manifest, outcome


def _kept(policy: Policy | None) -> Policy | None:
    return None if policy is None or policy.failures else policy


def _manifest(bundle: Bundle, outcome: DerivedParts, photos: PhotoSamples, command: str) -> Manifest:
    before, policy = bundle.manifest, _kept(outcome.policy)
    tables = dict(before.quality.tables)
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
        preprocess=dataclasses.replace(before.preprocess, jpeg_margin=policy.margin) if policy else before.preprocess,
        quality=dataclasses.replace(before.quality, tables=tables),
        provenance=Provenance(now, command, {**before.provenance.versions, **versions()}, before.provenance.licences),
    )


@dataclass(frozen=True)
class DerivedParts:
    """The result for each part that was asked for.

    Attributes:
        attempts: smaller graphs.
        policy: for large JPEGs; None if it was not asked for.
    """

    attempts: tuple[Attempt, ...] = ()
    policy: Policy | None = None

    @property
    def runs(self) -> list[str]:
        """Return the precisions whose image encoder was kept."""
        return [a.precision for a in self.attempts if a.encoder == "image" and not a.failures]

    @property
    def missing(self) -> list[str]:
        """Say what was left out and why: a precision without its image encoder, or the JPEG policy."""
        found = [
            _reasons(_what(a), a.failures) for a in self.attempts if a.encoder == "image" and a.failures
        ]  # without a name encoder, that of float32 runs
        if self.policy is not None and self.policy.failures:
            found.append(_reasons(f"jpeg margin {self.policy.margin:g}", self.policy.failures))
        return found

    @property
    def lines(self) -> list[str]:
        """Return a line of text for each part."""
        lines = [_attempt(attempt) for attempt in self.attempts]
        return lines if self.policy is None else [*lines, _policy(self.policy)]

    def plain(self) -> list[dict[str, Any]]:
        """Return, for JSON, what was asked for, whether it was kept, its figures and the reasons, for each part."""
        parts: list[tuple[dict[str, Any], Any, Sequence[str]]] = [
            ({"precision": a.precision, "encoder": a.encoder}, a.variant, a.failures) for a in self.attempts
        ]
        if self.policy is not None:
            parts.append(({"jpeg_margin": self.policy.margin}, self.policy.figures, self.policy.failures))
        return [
            {
                **asked,
                "kept": not failures,
                "figures": None if figures is None else dataclasses.asdict(figures),
                "reasons": list(failures),
            }
            for asked, figures, failures in parts
        ]


def _what(attempt: Attempt) -> str:
    return f"{attempt.precision} {attempt.encoder} encoder"


def _reasons(what: str, failures: Sequence[str]) -> str:
    return f"{what} ({'; '.join(failures)})"


def _verdict(failures: Sequence[str]) -> str:
    return _reasons("left out", failures) if failures else "kept"


def _attempt(attempt: Attempt) -> str:
    variant = attempt.variant
    if variant is None:
        return f"{_what(attempt)}: {_verdict(attempt.failures)}"
    kind = "photos" if attempt.encoder == "image" else "names"
    processor = f" on {variant.processor}" if variant.processor else ""
    return (
        f"{_what(attempt)}: {variant.method}, {variant.samples:,} {kind}, cosine {variant.mean_cosine:.5f} on average, "
        f"{variant.min_cosine:.5f} on the worst, same class {variant.top1_agreement:.1%}, {variant.speedup:.2f} times "
        f"as fast{processor}; {'; '.join(variant.notes)}: {_verdict(attempt.failures)}"
    )


def _policy(policy: Policy) -> str:
    found = policy.figures
    if found is None:
        return f"jpeg margin {policy.margin:g}: {_verdict(policy.failures)}"
    return (
        f"jpeg margin {policy.margin:g}: {found.samples} large photos, cosine {found.mean_cosine:.5f} on average, "
        f"{found.min_cosine:.5f} on the worst, same class {found.top1_agreement:.1%}: {_verdict(policy.failures)}"
    )
