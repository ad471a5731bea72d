"""A manifest as text, line by line: ``sar-bundle show``, and the model card that people and the hub read.

The card's front matter has the hub's own keys, so that a bundle's folder can be uploaded as it is. The card cannot name
the manifest's digest, because the manifest lists the card. Class names and other foreign text are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import CLASS_MODEL, Manifest, Quality, Scores, Variant
from sar_infer.errors import one_line

PHOTOS = "photos"
"""Key in ``quality.tables``: how many photos were ``learned``, and how many ``base`` and ``new`` accuracy are from."""
ADDED = "added classes"
"""Key in ``quality.tables`` of the argument of `expectation`."""
_WAYS = {"text-branch": "text only", "per-image": "per image"}
"""Tables of ``quality`` that hold ``Scores``, and their labels."""
_CLASSES_SHOWN = 12
_SPECIAL = re.compile(r"[^\w\s.,;:/()%+=?'-]|_")
_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_ABOUT = """\
A bundle of sar-clip: two ONNX encoders of a CLIP model, with the prompt inside, and a bank of class names. After
`pip install .` in a clone of sar-clip:

    sar-classify PHOTO --bundle BUNDLE
    sar-classify PHOTO --bundle BUNDLE --classes NAMES.txt
    sar-serve --bundle BUNDLE

It is for sorting and searching photos by names of things, not for recognising people, nor for decisions about health,
safety or rights. The best of the given names is predicted, also for a photo of none of them."""


def facts(manifest: Manifest, bank: ClassBank) -> Iterator[tuple[str, str]]:
    """Yield labels and values, in text that is not escaped."""
    spec, origin = manifest.preprocess, manifest.provenance
    weights = ", ".join(f"{name} {weight:g}" for name, weight in manifest.regularisers.items())
    yield "backbone", f"{manifest.backbone}, weights {manifest.weights_digest}"
    yield "method", manifest.method + (f" with {weights}" if weights else "")
    if manifest.template:
        yield "added names" if manifest.switched else "template", manifest.template
    shown = ", ".join(islice(bank.names, _CLASSES_SHOWN))
    more = ", …" if len(bank.names) > _CLASSES_SHOWN else ""
    yield "classes", f"{len(bank.names):,}: {shown}{more}" if shown else "none: a bank or --classes FILE adds them"
    if CLASS_MODEL in manifest.files:
        yield "class model", "of image features, which ranks trained and added classes together"
    yield "embedding", f"{manifest.embed_dim} numbers, logit scale {manifest.logit_scale:g}"
    yield "image", f"{spec.size} pixels, {spec.resize_mode}, {spec.interpolation}, mean {spec.mean}, std {spec.std}"
    words = manifest.tokenizer
    yield "class name", f"at most {words.max_name_tokens} tokens" if words else "none: classes are known by photos only"
    yield from _measured(manifest.quality)
    for precision, variant in manifest.precisions.items():
        yield precision, variant_line(variant)
    for note in manifest.quality.notes:
        yield "note", note
    for component, licence in origin.licences.items():
        yield "licence", f"{component}: {licence}"
    yield "encoder", manifest.encoder_digest
    yield "created", f"{origin.created} by {origin.command}"
    yield "versions", ", ".join(f"{name} {number}" for name, number in origin.versions.items())


def _measured(quality: Quality) -> Iterator[tuple[str, str]]:
    """Yield labels and values of what was measured when the bundle was made."""
    learned = quality.tables.get(PHOTOS, {}).get("learned")
    photos = f"{learned:,} photos learned" if learned else f"up to {quality.shots} photos a class"
    if quality.dataset:
        yield "measured on", ", ".join([quality.dataset, quality.protocol or "", photos])
    ways = {"zero-shot": quality.zero_shot, "this bundle": quality.metrics}
    ways |= {label: Scores(**quality.tables[key]) for key, label in _WAYS.items() if key in quality.tables}
    for label, scores in ways.items():
        names = {"base": scores.base_accuracy, "new": scores.new_accuracy, "harmonic mean": scores.harmonic_mean}
        if values := [f"{name} {value:.1f} %" for name, value in names.items() if value is not None]:
            yield label, ", ".join(values)
    if (added := quality.tables.get(ADDED)) is not None:
        yield "added later", expectation(added)
    for name, table in quality.tables.items():
        if isinstance(table, Mapping) and name not in (*_WAYS, ADDED, PHOTOS):
            shown = {key: f"{value:g}" for key, value in table.items() if isinstance(value, int | float)}
            shown |= {key: value for key, value in table.items() if isinstance(value, str)}
            yield name, ", ".join(f"{key} {value}" for key, value in shown.items())
    if (parity := quality.parity) is not None:
        yield (
            "parity",
            f"{parity.images} images: cosine to torch at least {parity.image_min_cosine:.7f}, same class "
            f"{parity.top1_agreement:.1%}; {parity.names:,} names: differ by at most {parity.name_max_difference:.1e}",
        )


def describe(bundle: Bundle) -> str:
    """Return a line of text for each fact, which ends with a line break."""
    manifest = bundle.manifest
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    lines = (("bundle", f"{bundle.location}, {size:.1f} MB"), ("digest", manifest.digest))
    return "".join(f"{label:<13} {one_line(value)}\n" for label, value in (*lines, *facts(manifest, bundle.bank)))


def variant_line(variant: Variant) -> str:
    """Return the figures of a smaller graph."""
    return (
        f"{variant.photos:,} photos: cosine {variant.mean_cosine:.4f} on average, at least {variant.min_cosine:.4f}, "
        f"same class {variant.top1_agreement:.1%}; {variant.speedup:.2f} times as fast as fp32"
        + (f" on {variant.processor}" if variant.processor else "")
    )


def expectation(entry: Mapping[str, Any]) -> str:
    """Return the line on the accuracy of trained classes and of a class that is added later.

    Args:
        entry: ``statistics`` of a run's record, or the table `ADDED` of a bundle: ``defaults``, why nothing was
            measured, or None; ``rivals``, the other classes of each ranking; ``expected``, the accuracy in per cent of
            ``trained`` classes, and of added ones among twice as many others (``accuracy``), for each number of
            ``photos``.
    """
    if entry["defaults"]:
        return f"accuracy not measured ({entry['defaults']}); the class model has its usual weights"
    shown = [item for item in entry["expected"] if item["photos"] <= 4]
    ways = (
        f"{item['accuracy']:.0f} % "
        + (f"with {item['photos']} photo{'s'[: item['photos'] > 1]}" if item["photos"] else "by name")
        for item in shown
    )
    trained, rivals = entry["expected"][-1]["trained"], entry["rivals"]
    return (
        f"expected accuracy {trained:.0f} % of trained classes among {rivals + 1}, and of classes that you add "
        f"{', '.join(ways)} among {2 * rivals + 1} (cross-validation)"
    )


def card(manifest: Manifest, bank: ClassBank) -> str:
    """Return the text of ``model_card.md``: YAML front matter, then Markdown.

    Args:
        manifest: The bundle's manifest; its digest is not used, and the list of files may lack the card.
        bank: The bundle's bank.
    """
    tags = ["clip", "onnx", "open-vocabulary", manifest.method, *manifest.regularisers, manifest.backbone]
    safe = dict.fromkeys(re.sub(r"[^a-z0-9]+", "-", tag.lower()).strip("-") for tag in tags)
    known = any("tower" in component for component in manifest.provenance.licences)
    licence = ["license: other", "license_name: stated-for-each-part"] if known else ["license: unknown"]
    front = ["---", *licence, "library_name: sar-clip", "pipeline_tag: zero-shot-image-classification", "tags:"]
    front += [*(f'- "{tag}"' for tag in safe if tag), "---"]
    title = " + ".join([manifest.method, *manifest.regularisers])
    lines = [f"- **{escaped(label)}**: {escaped(value)}" for label, value in facts(manifest, bank)]
    heading = f"# {escaped(title)} on {escaped(manifest.backbone)}"
    return "\n\n".join(["\n".join(front), heading, _ABOUT, "\n".join(lines)]) + "\n"


def escaped(text: str) -> str:
    """Return text as one line that no renderer takes for Markdown, HTML, a table's bar, a mention or a formula.

    Characters that may have a meaning become numeric references, which CommonMark never takes for markup. Invisible
    characters, such as those that turn the direction of writing, become replacement characters.
    """
    line = "".join(character if character.isprintable() else _UNSEEN for character in " ".join(text.split()))
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};" if match[0].isascii() else match[0], line)
