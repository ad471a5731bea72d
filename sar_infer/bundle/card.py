"""The model card of a bundle: what its manifest says, as a page for people and for the Hugging Face hub.

The front matter has the hub's own keys, so that a bundle's folder can be uploaded as it is. The card cannot name the
manifest's digest, because the manifest lists the card. Class names and other foreign text are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sar_infer.bank import ClassBank
from sar_infer.bundle.figures import ADDED, PHOTOS, expectation, photos_learned
from sar_infer.bundle.manifest import BANK, Calibration, Manifest, Precision, Quality, Scores, Variant

_FIRST = 12
"""How many class names the card shows."""
_LIMITS = {
    "sar-mini": (
        "The backbone is sar-mini, which is for demonstrations, tests and small machines. Its text tower was taught by "
        "words alone, never by images with captions. It knows everyday things; it does not know people, brands, "
        "text, drawings or scenes in a sentence, and it is no rival of CLIP's ViT-B/16."
    ),
    "sar-mini-vit": (
        "The backbone is sar-mini-vit, a small transformer taught by sar-mini and weaker than it. It is there to try "
        "methods that prompt the image side, and has no other use."
    ),
}
"""Notes for readers about our own backbones, by name."""
_WAYS = {"text-branch": "text branch alone", "per-image": "with a prompt for each photo"}
"""Tables of ``quality`` that hold ``Scores``, and their names in the card."""
_SHOWN = {*_WAYS, ADDED, PHOTOS}
"""Tables that the card shows in a way of their own."""
_SPECIAL = re.compile(r"[^\w\s.,;:/()%+=?'-]|_")
_UNSEEN = "\N{REPLACEMENT CHARACTER}"


def card(manifest: Manifest, bank: ClassBank) -> str:
    """Return the text of ``model_card.md``: YAML front matter, then Markdown.

    Args:
        manifest: The bundle's manifest; its digest and its list of files are not used and need not be complete.
        bank: The bundle's bank.
    """
    sections = {
        "": _summary(manifest, bank),
        "Use": _use(),
        "Intended use and limits": _limits(manifest),
        "Training": _training(manifest),
        "Quality": _quality(manifest.quality),
        "Confidence": _confidence(manifest),
        "Precisions": _precisions(manifest),
        "Preprocessing": _preprocessing(manifest),
        "Licences": _licences(manifest.provenance.licences),
        "Provenance": _provenance(manifest),
    }
    made_by = " + ".join([manifest.method, *manifest.regularisers])
    blocks = [_front_matter(manifest), f"# {escaped(made_by)} on {escaped(manifest.backbone)}"]
    for heading, content in sections.items():
        blocks += [*([f"## {heading}"] if heading else []), *content]
    return "\n\n".join(blocks) + "\n"


def _front_matter(manifest: Manifest) -> str:
    tags = ["clip", "onnx", "open-vocabulary", manifest.method, *manifest.regularisers, manifest.backbone]
    safe = dict.fromkeys(re.sub(r"[^a-z0-9]+", "-", tag.lower()).strip("-") for tag in tags)
    lines = ["---", *_licence_lines(manifest.provenance.licences), "library_name: sar-clip"]
    lines += ["pipeline_tag: zero-shot-image-classification", "tags:"]
    return "\n".join([*lines, *(f'- "{tag}"' for tag in safe if tag), "---"])


def _licence_lines(licences: Mapping[str, str]) -> list[str]:
    """Return ``other`` if licences of the towers are stated, since each part has its own; ``unknown`` otherwise."""
    if any("tower" in component for component in licences):
        return ["license: other", "license_name: stated-for-each-part"]
    return ["license: unknown"]


def _summary(manifest: Manifest, bank: ClassBank) -> Iterator[str]:
    """Yield what the bundle is made of, with the first of its classes."""
    yield (
        "A bundle of sar-clip: two ONNX encoders of a CLIP model, with the prompt inside, and a bank of class names. "
        "It ranks class names by how well they fit a photo: those of the bank, and any that come with a call."
    )
    yield "\n".join(f"- **{label}**: {value}" for label, value in _parts(manifest, bank))


def _use() -> Iterator[str]:
    """Yield the commands that take a bundle."""
    yield "After `pip install .` in a clone of sar-clip, where `BUNDLE` is this folder:"
    yield code_block(
        "sar-classify PHOTO --bundle BUNDLE\n"
        "sar-classify PHOTO --bundle BUNDLE --classes NAMES.txt\n"
        "sar-serve --bundle BUNDLE"
    )


def _limits(manifest: Manifest) -> Iterator[str]:
    """Yield what the bundle is for, what it is not for, and what cannot be expected of it."""
    points = [
        "For sorting and searching photos by names of things. Somebody should look at answers that matter; it is not "
        "for recognising people, nor for decisions about health, safety or rights.",
        "An answer is the best of the names given. A photo of none of them gets one of them too, and a high score at "
        "times" + ("; ask for `--unknown`." if manifest.thresholds else "."),
        "Names are English nouns, as CLIP's vocabulary expects them. A name that no photo was shown for is answered "
        "by what the backbone knows about the words.",
    ]
    points += [_LIMITS[manifest.backbone]] if manifest.backbone in _LIMITS else []
    yield "\n".join(f"- {point}" for point in points)


def _training(manifest: Manifest) -> Iterator[str]:
    """Yield what the prompt, or the statistics of a hand-crafted one, were learned from."""
    quality = manifest.quality
    if quality.dataset is None:
        yield "Not stated: nothing was trained, or the run left no record."
        return
    parts = [
        f"dataset {escaped(quality.dataset)}",
        f"protocol {escaped(quality.protocol)}" if quality.protocol else "",
        photos_learned(quality) or "",
        f"seed {', '.join(map(str, quality.seeds))}" if quality.seeds else "",
    ]
    subject = (
        "The prompt was" if manifest.method != "handcrafted" else "The prompt is hand-crafted; class statistics were"
    )
    yield f"{subject} learned, and the backbone left as it is: " + ", ".join(filter(None, parts)) + "."


def _preprocessing(manifest: Manifest) -> Iterator[str]:
    """Yield how photos and names are prepared for the encoders."""
    spec, words = manifest.preprocess, manifest.tokenizer
    size = f"{spec.size} × {spec.size} pixels"
    yield (
        f"Photos are turned upright, and transparency is laid on grey level {spec.fill}. They are resized to {size} "
        f"({spec.interpolation}, {spec.resize_mode}); values 0..1 less {_numbers(spec.mean)} are divided by "
        f"{_numbers(spec.std)}. Names become CLIP's byte pairs, at most {words.max_name_tokens} tokens."
    )


def _licences(licences: Mapping[str, str]) -> Iterator[str]:
    """Yield the licence of each part, as far as it is known."""
    lines = [f"- {escaped(component)}: {escaped(licence)}" for component, licence in licences.items()]
    if not any("tower" in component for component in licences):
        lines.append("- weights of the backbone: as their publisher states; not known here")
    yield "\n".join(lines)


def _provenance(manifest: Manifest) -> Iterator[str]:
    """Yield how the bundle was made, and how close it was to torch."""
    origin, parity = manifest.provenance, manifest.quality.parity
    yield f"Made {escaped(origin.created)} by:"
    yield code_block(origin.command)
    versions = ", ".join(f"{escaped(name)} {escaped(number)}" for name, number in origin.versions.items())
    lines = [f"Versions: {versions}", f"Weights: SHA-256 {escaped(manifest.weights_digest)}"]
    lines.append(f"Encoder, which banks belong to: {escaped(manifest.encoder_digest)}")
    if parity is not None:
        lines.append(
            f"Compared with torch on {parity.images:,} images (cosine at least {parity.image_min_cosine:.7f}, same "
            f"class {parity.top1_agreement:.1%}) and {parity.names:,} names (differ by at most "
            f"{parity.name_max_difference:.1e})"
        )
    yield "\n".join(f"- {line}" for line in lines)


def _parts(manifest: Manifest, bank: ClassBank) -> Iterator[tuple[str, str]]:
    terms = ", ".join(f"{name} ({weight:g})" for name, weight in manifest.regularisers.items())
    yield "backbone", escaped(manifest.backbone)
    yield "prompt", escaped(manifest.method + (f", regularised by {terms}" if terms else ""))
    left = len(bank.names) - _FIRST
    shown = ", ".join(escaped(name) for name in islice(bank.names, _FIRST))
    yield "classes", f"{len(bank.names):,}: {shown}" + (f" and {left:,} more, in `{BANK}`" if left > 0 else "")
    if added := bank.added_count:
        yield "added", f"{added:,} of these classes, at run time"
    if background := len(bank.background_names):
        yield "background", f"{background:,} of these classes, which are never an answer"
    yield "embedding", f"{manifest.embed_dim} numbers; logit scale {manifest.logit_scale:g}"
    if manifest.head:
        yield "head", "a trained classifier that answers together with the names where exactly its classes are asked"
    if manifest.statistics:
        yield "statistics", "of image features, which rank trained and added classes together, by name and by photos"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _quality(quality: Quality) -> Iterator[str]:
    """Yield accuracies, further figures and notes."""
    ways = {"zero-shot, the hand-crafted prompt": quality.zero_shot, "this bundle": quality.metrics}
    ways |= {title: Scores(**quality.tables[key]) for key, title in _WAYS.items() if key in quality.tables}
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
    if (added := quality.tables.get(ADDED)) is not None:
        yield f"Added later: {escaped(expectation(added))}."
    further = {name: table for name, table in quality.tables.items() if name not in _SHOWN and _is_flat(table)}
    if further:
        yield "\n".join(f"- {escaped(name)}: {_figures(table)}" for name, table in further.items())
    if quality.notes:
        yield "\n".join(f"- Note: {escaped(note)}" for note in quality.notes)


def _is_flat(table: Any) -> bool:
    return isinstance(table, Mapping) and all(isinstance(value, int | float) for value in table.values())


def _figures(table: Mapping[str, float]) -> str:
    return ", ".join(f"{escaped(name)} {value:g}" for name, value in table.items())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _confidence(manifest: Manifest) -> Iterator[str]:
    """Yield what scores mean."""
    if manifest.temperature is None:
        yield (
            "Scores are calibrated on trained classes left out in turn where an answer says `left-out`, on no held-out "
            "photo."
            if manifest.statistics
            else "Scores are not calibrated: a softmax over the names of the call, to be read as a ranking."
        )
        return
    yield (
        f"Scores are calibrated for {len(manifest.calibrated):,} of the classes (temperature "
        f"{manifest.temperature:.4g}), not for any that are added."
    )
    calibration = manifest.quality.calibration
    if calibration is not None:
        yield "\n".join(f"- {line}" for line in _calibration(calibration, manifest))


def _calibration(calibration: Calibration, manifest: Manifest) -> Iterator[str]:
    """Yield lines on the calibration; those on sets and thresholds only if the bundle still has them."""
    way = "cross-fitted" if calibration.cross_fitted else f"measured on {calibration.measured_on:,} others"
    yield f"Fitted on {calibration.fitted_on:,} held-out photos of {escaped(calibration.dataset)}, {way}."
    yield f"Expected calibration error {calibration.error_before:.2%} before, {calibration.error_after:.2%} after."
    for coverage, reached in calibration.coverage.items():
        if coverage not in manifest.conformal:
            continue
        size = f", {calibration.set_size[coverage]:.1f} classes a set" if coverage in calibration.set_size else ""
        yield f"Conformal sets for a coverage of {escaped(coverage)}: {reached:.3f} reached{size}."
    for way, area in calibration.unknown_auroc.items():
        if way in manifest.thresholds:
            yield f"Photos of unknown classes told apart by {escaped(way)}: AUROC {area:.3f}."


def _precisions(manifest: Manifest) -> Iterator[str]:
    """Yield a table of the smaller graphs and how they compare with float32."""
    variants = list(_variants(manifest.precisions))
    if not variants:
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
        for precision, encoder, variant in variants
    ]
    yield table(["", "made by", "samples", "least cosine", "mean cosine", "same answer", "speed"], rows)


def _variants(precisions: Mapping[str, Precision]) -> Iterator[tuple[str, str, Variant]]:
    for name, precision in precisions.items():
        for encoder, variant in (("image", precision.image), ("name", precision.name)):
            if variant is not None:
                yield name, encoder, variant


def escaped(text: str) -> str:
    """Return text as one line that no renderer takes for Markdown, HTML, a table's bar, a mention or a formula.

    Characters that may have a meaning become numeric references, which CommonMark never takes for markup. Invisible
    characters, such as those that turn the direction of writing, become replacement characters.
    """
    line = "".join(character if character.isprintable() else _UNSEEN for character in " ".join(text.split()))
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};" if match[0].isascii() else match[0], line)


def code_block(text: str) -> str:
    """Return text unchanged, in an indented block that nothing inside it can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown already; columns after the first are aligned right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
