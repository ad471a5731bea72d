"""What a bundle is, what it is for and where it comes from, for its card: Markdown, a paragraph or list at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from sar_infer.artefact.card.markdown import code_block, escaped
from sar_infer.artefact.manifest import BANK, Manifest, Passport
from sar_infer.bank import ClassBank

FIRST = 12
"""Class names that the card shows."""
LIMITS = {
    "sar-mini": (
        "The backbone is sar-mini, which is for demonstrations, tests and small machines. Its text tower was taught by "
        "words alone, never by pictures with captions. It knows everyday things; it does not know people, brands, "
        "text, drawings or scenes in a sentence, and it is no rival of CLIP's ViT-B/16."
    ),
    "sar-mini-vit": (
        "The backbone is sar-mini-vit, a small transformer taught by sar-mini and weaker than it. It is there to try "
        "methods that prompt the image side, and has no other use."
    ),
}
"""What a reader has to know about a backbone of ours, by its name."""


def summary(manifest: Manifest, bank: ClassBank) -> Iterator[str]:
    """What it is made of, and the first of its classes."""
    yield (
        "A bundle of sar-clip: two ONNX encoders of a CLIP model, with the prompt inside, and a bank of class names. "
        "It ranks class names by how well they fit a photo: those of the bank, and any that come with a call."
    )
    yield "\n".join(f"- **{label}**: {value}" for label, value in _parts(manifest, bank))


def use() -> Iterator[str]:
    """The commands that take it."""
    yield "With `pip install sar-clip`, where `BUNDLE` is this folder:"
    yield code_block(
        "sar-classify PHOTO --bundle BUNDLE\n"
        "sar-classify PHOTO --bundle BUNDLE --classes NAMES.txt\n"
        "sar-serve --bundle BUNDLE"
    )


def limits(manifest: Manifest) -> Iterator[str]:
    """What it is for, what it is not for, and what cannot be expected of it."""
    points = [
        "For sorting and searching photos by names of things. Somebody should look at answers that matter; it is not "
        "for recognising people, nor for decisions about health, safety or rights.",
        "An answer is the best of the names given. A photo of none of them gets one of them too, and a high score at "
        "times" + ("; ask for `--unknown`." if manifest.thresholds else "."),
        "Names are English nouns, as CLIP's vocabulary expects them. A name that no photo was shown for is answered "
        "by what the backbone knows about the words.",
    ]
    points += [LIMITS[manifest.backbone]] if manifest.backbone in LIMITS else []
    yield "\n".join(f"- {point}" for point in points)


def training(passport: Passport) -> Iterator[str]:
    """What the prompt was learned from."""
    if passport.dataset is None:
        yield "Not stated: nothing was trained, or the run left no record."
        return
    parts = [
        f"dataset {escaped(passport.dataset)}",
        f"protocol {escaped(passport.protocol)}" if passport.protocol else "",
        f"{passport.shots} photos of each class" if passport.shots else "",
        f"seed {', '.join(map(str, passport.seeds))}" if passport.seeds else "",
    ]
    yield "The prompt was learned, and the backbone left as it is: " + ", ".join(filter(None, parts)) + "."


def preprocessing(manifest: Manifest) -> Iterator[str]:
    """What photos and names go through before the encoders."""
    spec, words = manifest.preprocess, manifest.tokenizer
    size = f"{spec.size} × {spec.size} pixels"
    yield (
        f"Photos are turned upright, and transparency is laid on grey level {spec.fill}. They are resized to {size} "
        f"({spec.interpolation}, {spec.resize_mode}); values 0..1 less {_numbers(spec.mean)} are divided by "
        f"{_numbers(spec.std)}. Names become CLIP's byte pairs, at most {words.max_name_tokens} tokens."
    )
    if spec.jpeg_margin is not None:
        yield f"Large JPEGs are decoded at a reduced size, at least {spec.jpeg_margin:g} times the encoder's."


def licences(licences: Mapping[str, str]) -> Iterator[str]:
    """Of each part, as far as they are known."""
    lines = [f"- {escaped(part)}: {escaped(licence)}" for part, licence in licences.items()]
    if not any("tower" in part for part in licences):
        lines.append("- weights of the backbone: as their publisher states; not known here")
    yield "\n".join(lines)


def provenance(manifest: Manifest) -> Iterator[str]:
    """How it was made, and how near it was to torch then."""
    origin, parity = manifest.provenance, manifest.passport.parity
    yield f"Made {escaped(origin.created)} by:"
    yield code_block(origin.command)
    versions = ", ".join(f"{escaped(name)} {escaped(number)}" for name, number in origin.versions.items())
    lines = [f"Versions: {versions}", f"Weights: SHA-256 {escaped(manifest.weights_digest)}"]
    lines.append(f"Encoder, which banks belong to: {escaped(manifest.encoder_digest)}")
    if parity is not None:
        lines.append(
            f"Compared with torch on {parity.images:,} pictures (cosine at least {parity.image_min_cosine:.7f}, same "
            f"class {parity.top1_agreement:.1%}) and {parity.names:,} names (differ by at most "
            f"{parity.name_max_difference:.1e})"
        )
    yield "\n".join(f"- {line}" for line in lines)


def _parts(manifest: Manifest, bank: ClassBank) -> Iterator[tuple[str, str]]:
    terms = ", ".join(f"{name} ({weight:g})" for name, weight in manifest.regularisers.items())
    yield "backbone", escaped(manifest.backbone)
    yield "prompt", escaped(manifest.method + (f", regularised by {terms}" if terms else ""))
    left = len(bank.names) - FIRST
    shown = ", ".join(escaped(name) for name in islice(bank.names, FIRST))
    yield "classes", f"{len(bank.names):,}: {shown}" + (f" and {left:,} more, in `{BANK}`" if left > 0 else "")
    if added := len(bank.names) - bank.own:
        yield "added", f"{added:,} of these classes, at run time"
    if background := sum(item.background for item in bank.info.values()):
        yield "background", f"{background:,} of these classes, which are never an answer"
    yield "embedding", f"{manifest.embed_dim} numbers; logit scale {manifest.logit_scale:g}"
    if manifest.head:
        yield "head", "a trained classifier that answers together with the names where exactly its classes are asked"
    if manifest.reference is not None:
        yield "reference", f"the name encoder of the hand-crafted prompt, {escaped(manifest.reference.template)}"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
