"""A summary of a bundle in a few lines of text: what it is, what it takes, how good it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.figures import ADDED, expectation, photos_learned
from sar_infer.bundle.manifest import Manifest, Quality, Scores, Variant
from sar_infer.classifiers.trained_statistics import TrainedStatistics
from sar_infer.errors import one_line

_WAYS = {"text-branch": "text branch", "per-image": "per image"}
"""Labels of other ways to answer that a bundle may have figures for, by their table."""


def describe(bundle: Bundle) -> str:
    """Return the summary, which ends with a line break."""
    return "".join(f"{label:<14}{one_line(value)}\n" for label, value in _lines(bundle))


def _lines(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    weights = ", ".join(f"{name} {weight:g}" for name, weight in manifest.regularisers.items())
    yield "bundle", f"{bundle.place}, {sum(entry.size for entry in manifest.files.values()) / 1e6:.1f} MB"
    yield "backbone", manifest.backbone
    yield "method", manifest.method + (f" with {weights}" if weights else "")
    if manifest.template:
        yield "template", manifest.template
    yield "classes", f"{len(bundle.bank.names)} in the bank"
    if bundle.head is not None:
        yield (
            "head",
            f"for {len(bundle.head.names)} of them, with a share of {bundle.head.mix:g} beside the text branch",
        )
    if bundle.statistics is not None:
        yield from _statistics(bundle.statistics)
    yield "embedding", f"{manifest.embed_dim} numbers, logit scale {manifest.logit_scale:g}"
    yield "image", f"{manifest.preprocess.size} pixels, {manifest.preprocess.resize_mode}"
    yield "class name", f"at most {manifest.tokenizer.max_name_tokens} tokens"
    yield from _quality(manifest.quality)
    yield from _confidence(manifest, bundle.statistics)
    yield from _precisions(manifest)
    yield "digest", manifest.digest
    yield "encoder", manifest.encoder_digest
    yield "created", manifest.provenance.created
    yield "by", manifest.provenance.command


def _statistics(trained: TrainedStatistics) -> Iterator[tuple[str, str]]:
    model = trained.statistics
    photos = f"{int(model.counts.sum()):,} photos of {len(trained.names):,} classes" if trained.names else "no class"
    yield "statistics", f"of {photos}, with a weight of {model.alpha:g} beside the text branch"


def _quality(quality: Quality) -> Iterator[tuple[str, str]]:
    if quality.dataset:
        photos = photos_learned(quality)
        parts = (quality.dataset, quality.protocol, photos and f"{photos} learned")
        yield "measured on", ", ".join(text for text in parts if text)
    ways = {"zero-shot": quality.zero_shot, "this bundle": quality.metrics}
    ways |= {label: Scores(**quality.tables[key]) for key, label in _WAYS.items() if key in quality.tables}
    for label, scores in ways.items():
        if scores != Scores():
            yield label, _scores(scores)
    if (added := quality.tables.get(ADDED)) is not None:
        yield "added later", expectation(added)
    if (parity := quality.parity) is not None:
        yield (
            "parity",
            f"{parity.images} images: cosine to torch at least {parity.image_min_cosine:.7f}, same class "
            f"{parity.top1_agreement:.1%}; {parity.names:,} names: differ by at most {parity.name_max_difference:.1e}",
        )
    for note in quality.notes:
        yield "note", note


def _precisions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for precision, graphs in manifest.precisions.items():
        for kind, samples, variant in (("images", "photos", graphs.image), ("names", "names", graphs.name)):
            if variant:
                yield f"{precision} {kind}", _variant(variant, samples)


def _variant(variant: Variant, samples: str) -> str:
    figures = (
        f"{variant.method}; {variant.samples:,} {samples}: cosine {variant.mean_cosine:.4f}, at least "
        f"{variant.min_cosine:.4f}, same class {variant.top1_agreement:.1%}; {variant.speedup:.2f} times as fast"
    )
    return f"{figures}; measured on {variant.processor}" if variant.processor else figures


def _confidence(manifest: Manifest, trained: TrainedStatistics | None) -> Iterator[tuple[str, str]]:
    confidence = None if trained is None else trained.statistics.confidence
    if confidence is not None:
        yield (
            "left out",
            f"temperature {confidence.temperature:.3f}, for any classes, from trained ones left out in turn",
        )
    if manifest.temperature is None and confidence is not None:
        return
    if manifest.temperature is None:
        yield "calibration", "none: scores rank, and no threshold for unknown is known"
        return
    note = "; what was fitted did not help" if manifest.temperature == 1 else ""
    yield "temperature", f"{manifest.temperature:.3f}, for {len(manifest.calibrated)} classes{note}"
    limits = {"score": "score below {:.3f}", "energy": "energy above {:.2f}"}
    bounds = [limits[kind].format(value) for kind, value in manifest.thresholds.items() if kind in limits]
    if bounds:
        yield "unknown", ", or ".join(bounds)
    measured = manifest.quality.calibration
    if measured is None:
        return
    how = ", cross-fitted" if measured.cross_fitted else ""
    yield (
        "calibration",
        f"fitted on {measured.fitted_on} photos; error (ECE) {measured.error_before:.1%} before, "
        f"{measured.error_after:.1%} after, on {measured.measured_on} photos{how}; in float32",
    )
    for coverage, share in measured.coverage.items():
        if coverage in manifest.conformal:
            size = f", {measured.set_size[coverage]:.2f} classes each" if coverage in measured.set_size else ""
            yield "sets", f"coverage {coverage}: {share:.1%} measured{size}"
    for kind, value in measured.unknown_auroc.items():
        yield "unknown by", f"{kind}: AUROC {value:.3f} on classes that were new"


def _scores(scores: Scores) -> str:
    names = {"base_accuracy": "base", "new_accuracy": "new", "harmonic_mean": "harmonic mean"}
    accuracies = {names[field]: value for field, value in dataclasses.asdict(scores).items() if value is not None}
    return ", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items())
