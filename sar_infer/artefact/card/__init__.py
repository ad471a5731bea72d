"""The model card of a bundle: what its manifest says, as a page for people and for the Hugging Face hub.

The front matter has the hub's own keys, so that a bundle's folder can be uploaded as it is. The card cannot name the
manifest's digest, because the manifest lists the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sar_infer.artefact.card import about, figures
from sar_infer.artefact.card.markdown import escaped
from sar_infer.artefact.manifest import Manifest
from sar_infer.bank import ClassBank


def card(manifest: Manifest, bank: ClassBank) -> str:
    """The text of ``model_card.md``: YAML front matter, then Markdown.

    Args:
        manifest: Complete but for its digest and the entry of the card among its files; neither is looked at.
        bank: The bundle's.
    """
    sections = {
        "": about.summary(manifest, bank),
        "Use": about.use(),
        "Intended use and limits": about.limits(manifest),
        "Training": about.training(manifest.passport),
        "Quality": figures.quality(manifest.passport),
        "Confidence": figures.confidence(manifest),
        "Precisions": figures.precisions(manifest),
        "Preprocessing": about.preprocessing(manifest),
        "Licences": about.licences(manifest.provenance.licences),
        "Provenance": about.provenance(manifest),
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
    """``other`` where the licences of the towers are stated, each its own; ``unknown`` where they are not."""
    if any("tower" in part for part in licences):
        return ["license: other", "license_name: stated-for-each-part"]
    return ["license: unknown"]
