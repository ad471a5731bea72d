"""The text and the JSON that ``sar-export`` ends with."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

from sar_infer.artefact.manifest import Manifest, Passport, Scores
from sar_train.export.precision.derive import Outcome
from sar_train.export.source import PER_IMAGE
from sar_train.training.record import TEXT_BRANCH

TITLES = {TEXT_BRANCH: "text branch", PER_IMAGE: "per image"}
"""Titles of the other ways to answer that a manifest may have figures for."""


def report(out: Path, manifest: Manifest, classes: int) -> str:
    """Return the text that ends an export: what the bundle is, how good, how large and where."""
    quality = manifest.passport
    parity = quality.parity
    terms = "".join(f" + {name} ({weight:g})" for name, weight in manifest.regularisers.items())
    lines = [f"bundle     {out}    {size(manifest) / 1e6:.1f} MB    {classes:,} classes"]
    lines.append(f"method     {manifest.method}{terms} on {manifest.backbone}")
    if parity:
        lines.append(
            f"parity     {parity.images} images: cosine at least {parity.image_min_cosine:.7f}, same class "
            f"{parity.top1_agreement:.1%}; {parity.names:,} names: differ by at most {parity.name_max_difference:.1e}"
        )
    lines += [*_quality(quality), *_confidence(manifest), *(f"note       {note}" for note in quality.notes)]
    return "\n".join([*lines, f"next       sar-classify PHOTO --bundle {shlex.quote(str(out))}"])


def plain(out: Path, manifest: Manifest, outcome: Outcome | None = None) -> str:
    """Return JSON for programs: the bundle and, under ``asked``, the result for each part that was to be added."""
    content = {
        "bundle": str(out),
        "digest": manifest.digest,
        "encoder_digest": manifest.encoder_digest,
        "bytes": size(manifest),
        "precisions": {name: dataclasses.asdict(graphs) for name, graphs in manifest.precisions.items()},
        "passport": dataclasses.asdict(manifest.passport),
    }
    if outcome is not None:
        content["asked"] = outcome.plain()
    return json.dumps(content, ensure_ascii=False)


def size(manifest: Manifest) -> int:
    """Return the number of bytes of all files that the manifest lists."""
    return sum(entry.size for entry in manifest.files.values())


def _quality(quality: Passport) -> list[str]:
    if quality.dataset is None:
        return ["quality    not measured"]
    seeds = ", ".join(map(str, quality.seeds))
    lines = [f"quality    {quality.dataset}, {quality.protocol}, {quality.shots} shots, seed {seeds}"]
    lines.append(f"  {'percent':<12}{'base':>8}{'new':>8}{'H':>8}")
    ways = {"zero-shot": quality.zero_shot, "this bundle": quality.metrics}
    ways |= {title: Scores(**quality.tables[name]) for name, title in TITLES.items() if name in quality.tables}
    return lines + [_scores(title, scores) for title, scores in ways.items()]


def _confidence(manifest: Manifest) -> list[str]:
    measured = manifest.passport.calibration
    if measured is None or manifest.temperature is None:
        return []
    photos = f"fitted on {measured.fitted_on} photos, " + (
        "cross-fitted" if measured.cross_fitted else f"measured on {measured.measured_on} others"
    )
    kept = "; what was fitted did not help" if manifest.temperature == 1 else ""
    lines = [
        f"confidence temperature {manifest.temperature:.3f}{kept}, {photos}",
        f"  calibration error (ECE) {measured.error_before:.2%} before, {measured.error_after:.2%} after",
        "  unknown below score {score:.3f}, or above energy {energy:.2f}".format(**manifest.thresholds)
        + "".join(f"; AUROC by {kind} {value:.3f}" for kind, value in measured.unknown_auroc.items()),
    ]
    sets = [f"{c}: {measured.coverage[c]:.1%} with {measured.set_size[c]:.2f} classes" for c in measured.coverage]
    return [*lines, "  prediction sets for coverage " + ", ".join(sets)]


def _scores(title: str, scores: Scores) -> str:
    values = (scores.base_accuracy, scores.new_accuracy, scores.harmonic_mean)
    return f"  {title:<12}" + "".join(f"{'-' if value is None else format(value, '.2f'):>8}" for value in values)
