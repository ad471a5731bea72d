"""Derive a bundle from another: the same encoder and bank, with smaller graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_infer.bank.edits import utc_now
from sar_infer.bundle.bundle import Bundle, Place, open_bundle
from sar_infer.bundle.manifest import CARD, Manifest, Provenance
from sar_infer.bundle.writing import link_or_copy, seal, staged
from sar_train.errors import ExportError
from sar_train.export.precision import variants
from sar_train.export.precision.gate import Gate
from sar_train.export.precision.samples import PhotoSamples
from sar_train.export.precision.variants import Attempt
from sar_train.training.record import versions

PRECISION_TABLE = "precision"
"""Key of ``quality.tables``."""


def derive(
    source: Place,
    out: Path,
    photos: PhotoSamples,
    *,
    gates: Mapping[str, Gate],
    command: str,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, DerivedParts]:
    """Write a new bundle with every smaller graph that passes its gate; the others are left out.

    Files that stay the same become hard links if the file system has them.

    Args:
        source: the bundle; may be the same as ``out`` with ``overwrite``.
        out: the new folder.
        photos: to calibrate and evaluate with.
        gates: bounds for each precision that is asked for.
        command: the command line, for the manifest.
        overwrite: replace a bundle that is there.
        tell: called with lines of progress.

    Returns:
        The manifest that was written, and the result for each graph that was asked for.

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
        outcome = DerivedParts(tuple(variants.make(bundle, folder, gates, photos, tell)))
        if not variants.passed(outcome.attempts):
            stays = f"{source} stays as it is" + ("" if out == Path(source) else f", and {out} was not written")
            raise ExportError(f"nothing that was asked for passed: {'; '.join(outcome.lines)}; {stays}")
        manifest = seal(folder, _manifest(bundle, outcome, photos, command), bundle.bank)
        open_bundle(folder)
    return manifest, outcome


def _manifest(bundle: Bundle, outcome: DerivedParts, photos: PhotoSamples, command: str) -> Manifest:
    before, attempted = bundle.manifest, {attempt.precision for attempt in outcome.attempts}
    others = {precision: graphs for precision, graphs in before.precisions.items() if precision not in attempted}
    table = {"calibration": len(photos.calibration), "judging": len(photos.judging)}
    return dataclasses.replace(
        before,
        precisions=others | variants.passed(outcome.attempts),
        quality=dataclasses.replace(before.quality, tables={**before.quality.tables, PRECISION_TABLE: table}),
        provenance=Provenance(
            utc_now(), command, {**before.provenance.versions, **versions()}, before.provenance.licences
        ),
    )


@dataclass(frozen=True)
class DerivedParts:
    """The result for each smaller graph that was asked for."""

    attempts: tuple[Attempt, ...]

    @property
    def runs(self) -> list[str]:
        """Return the precisions whose image encoder passed."""
        return [a.precision for a in self.attempts if a.encoder == "image" and not a.failures]

    @property
    def missing(self) -> list[str]:
        """Say which precisions have no image encoder and why; without a name encoder, that of float32 runs."""
        return [_reasons(_title(a), a.failures) for a in self.attempts if a.encoder == "image" and a.failures]

    @property
    def lines(self) -> list[str]:
        """Return a line of text for each graph."""
        return [_line(attempt) for attempt in self.attempts]

    def plain(self) -> list[dict[str, Any]]:
        """Return, for JSON, what was asked for, whether it was kept, its figures and the reasons, for each graph."""
        return [
            {
                "precision": attempt.precision,
                "encoder": attempt.encoder,
                "kept": not attempt.failures,
                "figures": None if attempt.variant is None else dataclasses.asdict(attempt.variant),
                "reasons": list(attempt.failures),
            }
            for attempt in self.attempts
        ]


def _title(attempt: Attempt) -> str:
    return f"{attempt.precision} {attempt.encoder} encoder"


def _reasons(title: str, failures: Sequence[str]) -> str:
    return f"{title} ({'; '.join(failures)})"


def _line(attempt: Attempt) -> str:
    variant = attempt.variant
    verdict = _reasons("left out", attempt.failures) if attempt.failures else "kept"
    if variant is None:
        return f"{_title(attempt)}: {verdict}"
    kind = "photos" if attempt.encoder == "image" else "names"
    processor = f" on {variant.processor}" if variant.processor else ""
    return (
        f"{_title(attempt)}: {variant.method}, {variant.samples:,} {kind}, cosine {variant.mean_cosine:.5f} on average,"
        f" {variant.min_cosine:.5f} on the worst, same class {variant.top1_agreement:.1%}, {variant.speedup:.2f} times "
        f"as fast{processor}; {'; '.join(variant.notes)}: {verdict}"
    )
