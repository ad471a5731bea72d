"""The checks that a bundle's folder must pass before anything in it is used.

A manifest whose digest is correct may still hold a number that would take all memory or turn every score into NaN, and
a folder may differ from its manifest. The inputs and outputs of graphs are checked when onnxruntime opens them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sar_infer.bundle.graph import refuse_external_data
from sar_infer.bundle.manifest import (
    BANK,
    IMAGE_ENCODER,
    MANIFEST,
    NAME_ENCODER,
    TOKENIZER,
    TOKENIZER_JSON,
    Manifest,
    Preprocess,
    file_entry,
)
from sar_infer.errors import BundleError
from sar_infer.text import TokenizerSpec

_OF_TEXT = {"clip-bpe": (NAME_ENCODER, TOKENIZER), "tokenizer.json": (NAME_ENCODER, TOKENIZER_JSON)}
"""Files that a bundle with a text tower needs, by the kind of its tokenizer."""
_SIDE = 4096
_WIDTH = 65_536
_SCALE = 1e6
Limit = tuple[str, float | None, float, float]
"""A field, its value, and the least and the largest that it may have."""


def check_manifest(manifest: Manifest, source: str) -> None:
    """Raise BundleError if a number of a manifest is out of its limits."""
    embedding = manifest.self_test.embedding
    check_numbers(
        source,
        manifest.preprocess,
        manifest.tokenizer,
        ("embed_dim", manifest.embed_dim, 1, _WIDTH),
        ("logit_scale", manifest.logit_scale, 1 / _SCALE, _SCALE),
        ("logit_bias", manifest.logit_bias, -_SCALE, _SCALE),
        ("self_test.seed", manifest.self_test.seed, 0, 2**32),
        ("length of self_test.embedding", len(embedding), manifest.embed_dim, manifest.embed_dim),
    )


def check_numbers(source: str, spec: Preprocess | None, words: TokenizerSpec | None, *others: Limit) -> None:
    """Raise BundleError if a number of the encoders' inputs, or another one, is out of its limits."""
    rules = [*others]
    if spec is not None:
        rules += [
            ("preprocess.size", spec.size, 1, _SIDE),
            ("preprocess.fill", spec.fill, 0, 255),
            *(("preprocess.mean", mean, -_SCALE, _SCALE) for mean in spec.mean),
            *(("preprocess.std", std, 1 / _SCALE, _SCALE) for std in spec.std),
        ]
    if words is not None:
        rules += [
            ("tokenizer.context_length", words.context_length, 2, _WIDTH),
            ("tokenizer.n_prefix", words.n_prefix, 0, _WIDTH),
            ("tokenizer.max_name_tokens", words.max_name_tokens, 1, _WIDTH),
        ]
    for field, value, least, largest in rules:
        if value is not None and not least <= value <= largest:
            raise BundleError(f"{source}: field {field}: expected {least:g} to {largest:g}, got {value}")


def check_folder(path: Path, manifest: Manifest, *, cached: bool = False) -> None:
    """Check that a folder holds exactly the files that its manifest lists, with their content.

    Args:
        path: The folder.
        manifest: Its manifest.
        cached: It is a hub's cache: files are links, and other files of the repository may lie next to them.

    Raises:
        BundleError: A file is missing, extra, changed or a link out of the folder; a graph has data outside
            itself.
        OSError: A file cannot be read.
    """
    variants = {variant.file for variant in manifest.precisions.values()}
    of_text = _OF_TEXT[manifest.tokenizer.kind] if manifest.tokenizer else ()
    for name in sorted({IMAGE_ENCODER, BANK, *of_text, *variants} - manifest.files.keys()):
        raise BundleError(f"{path / MANIFEST}: does not list {name!r:.80}, which the bundle needs")
    root, present = path.resolve(), {entry.name for entry in path.iterdir()}
    for name in sorted(present - {*manifest.files, MANIFEST} if not cached else ()):
        raise BundleError(f"{path / name}: not listed in {MANIFEST}; a bundle contains only its own files: remove it")
    for name in (*sorted(manifest.files), MANIFEST):
        if name not in present:
            raise BundleError(f"{path / name}: missing, but listed in {MANIFEST}; copy or export the bundle again")
        # resolve() raises where a link leads to itself
        if not cached and Path(os.path.realpath(path / name)).parent != root:
            raise BundleError(f"{path / name}: leads out of the bundle folder")
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: not a file")
    with ThreadPoolExecutor() as pool:
        entries = list(pool.map(lambda name: file_entry(path / name), manifest.files))
    for (name, expected), entry in zip(manifest.files.items(), entries, strict=True):
        if entry != expected:
            raise BundleError(
                f"{path / name}: damaged: {entry.size} bytes with sha256 {entry.sha256[:12]}…, expected "
                f"{expected.size} with {expected.sha256[:12]}…; copy or export the bundle again"
            )
    for name in sorted({IMAGE_ENCODER, *of_text[:1], *variants}):
        refuse_external_data(path / name)
