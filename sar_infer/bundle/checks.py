"""The checks that a bundle's folder must pass before anything in it is used.

`check_numbers` looks at the manifest alone: a manifest whose digest fits may still hold a number that would take all
memory or turn every score into NaN. `check_folder` compares the folder with the manifest: its files and their
content. What the graphs take and give is checked when onnxruntime opens them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sar_infer.bundle.graph import refuse_external_data
from sar_infer.bundle.manifest import (
    BANK,
    HEAD,
    IMAGE_ENCODER,
    MANIFEST,
    NAME_ENCODER,
    STATISTICS,
    TOKENIZER,
    Manifest,
    file_entry,
)
from sar_infer.errors import BundleError

_REQUIRED = (IMAGE_ENCODER, NAME_ENCODER, BANK, TOKENIZER)
_Rule = tuple[str, float | None, float, float]
"""Field, value, least, largest; None is always allowed."""
_SIDE = 4096
_WIDTH = 65_536
_SCALE = 1e6
_ENERGY = 1e9
_THRESHOLDS = ("score", "energy")


def check_numbers(manifest: Manifest, source: str) -> None:
    """Raise BundleError if a number is out of its limits, or a key is unknown or contradicts another."""
    _check_keys(manifest, source)
    for field, value, least, largest in _rules(manifest):
        if value is not None and not least <= value <= largest:
            raise BundleError(f"{source}: field {field}: expected {least:g} to {largest:g}, got {value}")
    _check_branch(manifest, source)


def _check_keys(manifest: Manifest, source: str) -> None:
    calibration = manifest.quality.calibration
    measured = () if calibration is None else calibration.coverage
    for name in manifest.thresholds:
        if name not in _THRESHOLDS:
            raise BundleError(f"{source}: field thresholds: expected score and energy, got {name!r:.80}")
    for name in (*manifest.conformal, *measured):
        if not _is_share(name):
            raise BundleError(f"{source}: a coverage is a number between 0 and 1, got {name!r:.80}")
    if calibration is not None and calibration.coverage.keys() != calibration.set_size.keys():
        raise BundleError(f"{source}: field quality.calibration: coverage and set_size have different keys")
    if len({*manifest.calibrated}) < len(manifest.calibrated):
        raise BundleError(f"{source}: field calibrated: a class is listed twice")


def _check_branch(manifest: Manifest, source: str) -> None:
    """Raise BundleError unless a calibration names its branch, one that the bundle has."""
    fitted = manifest.temperature is not None or manifest.thresholds or manifest.conformal or manifest.calibrated
    branch, files = manifest.calibrated_for, {"head": manifest.head, "statistics": manifest.statistics}
    if fitted and branch is None:
        raise BundleError(f"{source}: field calibrated_for: expected the branch that the calibration is for, got null")
    if branch in files and files[branch] is None:
        raise BundleError(f"{source}: field calibrated_for: is {branch}, which the bundle does not have")


def _rules(manifest: Manifest) -> Iterator[_Rule]:
    yield "embed_dim", manifest.embed_dim, 1, _WIDTH
    yield "logit_scale", manifest.logit_scale, 1 / _SCALE, _SCALE
    yield "logit_bias", manifest.logit_bias, -_SCALE, _SCALE
    yield "temperature", manifest.temperature, 1 / _SCALE, _SCALE
    yield "thresholds.score", manifest.thresholds.get("score"), 0, 1
    yield "thresholds.energy", manifest.thresholds.get("energy"), -_ENERGY, _ENERGY
    for coverage, least in manifest.conformal.items():
        yield f"conformal.{coverage}", least, 0, 1
    spec = manifest.preprocess
    yield "preprocess.size", spec.size, 1, _SIDE
    yield "preprocess.fill", spec.fill, 0, 255
    for mean, std in zip(spec.mean, spec.std, strict=True):
        yield "preprocess.mean", mean, -_SCALE, _SCALE
        yield "preprocess.std", std, 1 / _SCALE, _SCALE
    words = manifest.tokenizer
    yield "tokenizer.context_length", words.context_length, 2, _WIDTH
    yield "tokenizer.n_prefix", words.n_prefix, 1, _WIDTH
    yield "tokenizer.max_name_tokens", words.max_name_tokens, 1, _WIDTH


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def check_folder(path: Path, manifest: Manifest, *, cached: bool = False) -> None:
    """Check that a folder holds what its manifest says.

    Args:
        path: The folder.
        manifest: Its manifest.
        cached: It is a hub's cache: files are links, and other files of the repository may lie beside them.

    Raises:
        BundleError: A file is missing, extra, changed or a link out of the folder; a graph has data outside
            itself.
        OSError: A file cannot be read.
    """
    _check_listing(path, manifest, cached=cached)
    _check_contents(path, manifest)
    _check_graphs(path, manifest)


def _check_listing(path: Path, manifest: Manifest, *, cached: bool) -> None:
    """Raise BundleError unless the folder holds exactly the listed files, all of them plain files in it.

    In a cache they may be links, and need not be all that the folder holds.
    """
    listed = set(manifest.files)
    present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    for name in _REQUIRED:
        if name not in listed:
            raise BundleError(f"{path / MANIFEST}: does not list {name}, which every bundle has")
    _check_named(path, manifest, "head", manifest.head, HEAD)
    _check_named(path, manifest, "statistics", manifest.statistics, STATISTICS)
    for name in sorted(listed - present):
        raise BundleError(f"{path / name}: missing, but listed in {MANIFEST}; copy or export the bundle again")
    for name in sorted(present - listed if not cached else ()):
        raise BundleError(
            f"{path / name}: not listed in {MANIFEST}; a bundle holds nothing but its own files: remove it"
        )
    root = path.resolve()
    for name in sorted(listed | {MANIFEST}):
        inside = Path(os.path.realpath(path / name)).parent == root  # resolve() raises where a link leads to itself
        if not inside and not cached:
            raise BundleError(f"{path / name}: leads out of the bundle folder")
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: not a file")


def _check_named(path: Path, manifest: Manifest, field: str, named: str | None, file: str) -> None:
    """Raise BundleError unless an optional file is both named by its field and listed, or neither."""
    if named not in (None, file):
        raise BundleError(f"{path / MANIFEST}: field {field}: expected null or {file!r}, got {named!r:.80}")
    if named and file not in manifest.files:
        raise BundleError(f"{path / MANIFEST}: does not list {file}, which its field {field} names")
    if file in manifest.files and not named:
        raise BundleError(f"{path / file}: listed in {MANIFEST}, whose field {field} does not name it")


def _check_contents(path: Path, manifest: Manifest) -> None:
    with ThreadPoolExecutor() as pool:
        entries = dict(zip(manifest.files, pool.map(lambda name: file_entry(path / name), manifest.files), strict=True))
    for name, expected in manifest.files.items():
        entry = entries[name]
        if entry.size != expected.size:
            raise BundleError(f"{path / name}: damaged: {entry.size} bytes, expected {expected.size}; export it again")
        if entry.sha256 != expected.sha256:
            raise BundleError(
                f"{path / name}: damaged: sha256 {entry.sha256[:12]}…, expected {expected.sha256[:12]}…; "
                "copy or export the bundle again"
            )


def _check_graphs(path: Path, manifest: Manifest) -> None:
    """Raise BundleError unless all graphs are listed and hold their weights, and names have the room that is stated."""
    graphs = {IMAGE_ENCODER, NAME_ENCODER}
    for precision, smaller in manifest.precisions.items():
        for variant in filter(None, (smaller.image, smaller.name)):
            if variant.file not in manifest.files:
                raise BundleError(f"{path / MANIFEST}: does not list {variant.file!r:.80}, its graph in {precision}")
            graphs.add(variant.file)
    for name in sorted(graphs):
        refuse_external_data(path / name)
    spec = manifest.tokenizer
    if spec.n_prefix + spec.max_name_tokens + 1 != spec.context_length:
        raise BundleError(
            f"{path / MANIFEST}: tokenizer: n_prefix {spec.n_prefix} + max_name_tokens {spec.max_name_tokens} + 1 "
            f"is not context_length {spec.context_length}"
        )
