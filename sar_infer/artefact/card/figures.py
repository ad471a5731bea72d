"""How good a bundle is, for its card: Markdown, a paragraph, list or table at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sar_infer.artefact.card.markdown import escaped, table
from sar_infer.artefact.manifest import Calibration, Manifest, Passport, Precision, Scores, Variant

WAYS = {"text-branch": "text branch, without the head", "per-image": "with a prompt for each photo"}
"""Tables of a passport that hold ``Scores``, with what they are called in the card."""


def quality(passport: Passport) -> Iterator[str]:
    """Accuracies, further tables of figures, notes."""
    ways = {"zero-shot, the hand-crafted prompt": passport.zero_shot, "this bundle": passport.metrics}
    ways |= {title: Scores(**passport.tables[key]) for key, title in WAYS.items() if key in passport.tables}
    measured = {title: scores for title, scores in ways.items() if scores != Scores()}
    if measured:
        rows = [
            [title, *map(_percent, (scores.base_accuracy, scores.new_accuracy, scores.harmonic_mean))]
            for title, scores in measured.items()
        ]
        yield "Test photos with the right name first, in percent:"
        yield table(["", "trained classes", "new classes", "harmonic mean"], rows)
    else:
        yield "Accuracy was not measured."
    further = {name: found for name, found in passport.tables.items() if name not in WAYS and _is_flat(found)}
    if further:
        yield "\n".join(f"- {escaped(name)}: {_figures(found)}" for name, found in further.items())
    if passport.notes:
        yield "\n".join(f"- Note: {escaped(note)}" for note in passport.notes)


def _is_flat(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(value, int | float) for value in found.values())


def _figures(found: Mapping[str, float]) -> str:
    return ", ".join(f"{escaped(name)} {value:g}" for name, value in found.items())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def confidence(manifest: Manifest) -> Iterator[str]:
    """What scores mean."""
    if manifest.temperature is None:
        yield "Scores are not calibrated: a softmax over the names of the call, to be read as a ranking."
        return
    yield (
        f"Scores are calibrated for {len(manifest.calibrated):,} of the classes (temperature "
        f"{manifest.temperature:.4g}), not for any that are added."
    )
    found = manifest.passport.calibration
    if found is not None:
        yield "\n".join(f"- {line}" for line in _calibration(found, manifest))


def _calibration(found: Calibration, manifest: Manifest) -> Iterator[str]:
    """Of sets and thresholds only what the bundle still has."""
    way = "cross-fitted" if found.cross_fitted else f"measured on {found.measured_on:,} others"
    yield f"Fitted on {found.fitted_on:,} held-out photos of {escaped(found.dataset)}, {way}."
    yield f"Expected calibration error {found.error_before:.2%} before, {found.error_after:.2%} after."
    for wanted, reached in found.coverage.items():
        if wanted not in manifest.conformal:
            continue
        size = f", {found.set_size[wanted]:.1f} classes a set" if wanted in found.set_size else ""
        yield f"Conformal sets for a coverage of {escaped(wanted)}: {reached:.3f} reached{size}."
    for way, area in found.unknown_auroc.items():
        if way in manifest.thresholds:
            yield f"Photos of unknown classes told apart by {escaped(way)}: AUROC {area:.3f}."


def precisions(manifest: Manifest) -> Iterator[str]:
    """The smaller graphs, with what they were compared by."""
    found = list(_variants(manifest.precisions))
    if not found:
        yield "Full precision (fp32) only."
        return
    yield "Beside full precision (fp32), compared with it on samples that nothing was calibrated on:"
    rows = [
        [
            f"{escaped(precision)} {encoder}",
            variant.method,
            f"{variant.samples:,}",
            f"{variant.min_cosine:.4f}",
            f"{variant.mean_cosine:.4f}",
            f"{variant.top1_agreement:.1%}",
            f"{variant.speedup:.2f} ×",
        ]
        for precision, encoder, variant in found
    ]
    yield table(["", "made by", "samples", "least cosine", "mean cosine", "same answer", "speed"], rows)


def _variants(precisions: Mapping[str, Precision]) -> Iterator[tuple[str, str, Variant]]:
    for name, precision in precisions.items():
        for encoder, variant in (("image", precision.image), ("name", precision.name)):
            if variant is not None:
                yield name, encoder, variant
