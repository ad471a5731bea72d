"""Opening a bundle: nothing is used before everything in the folder has been checked against its manifest."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from sar_infer.artefact.folder import check_folder
from sar_infer.artefact.limits import check_numbers
from sar_infer.artefact.manifest import BANK, HEAD, MANIFEST, TOKENIZER, Manifest
from sar_infer.bank import ClassBank
from sar_infer.bank.head import ClassHead
from sar_infer.errors import BankError, BundleError
from sar_infer.text.names import name_key
from sar_infer.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle folder."""

    path: Path
    manifest: Manifest
    bank: ClassBank
    head: ClassHead | None = None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Read when first needed: classifying against the bank alone does without."""
        tokenizer = Tokenizer.open(self.path / TOKENIZER)
        if tokenizer.end_token != self.manifest.tokenizer.end_token:
            raise BundleError(
                f"{self.path / TOKENIZER}: end token is {tokenizer.end_token}, "
                f"the manifest says {self.manifest.tokenizer.end_token}"
            )
        return tokenizer


def open_bundle(path: Path | None = None) -> Bundle:
    """Open and check a bundle.

    Args:
        path: The folder; None takes ``default_bundle()``.

    Raises:
        SchemaError: the bundle needs a newer reader.
        BundleError: a file is missing, extra, changed or a link out of the folder; a graph refers to data outside
            itself or does not fit the manifest; the bank or the head is damaged or does not belong to the rest.
    """
    path = default_bundle() if path is None else path
    try:
        return _open(path)
    except (BankError, OSError) as error:
        raise BundleError(str(error)) from None


def default_bundle() -> Path:
    """The bundle that ships with the package: ``exports/mini`` of a checkout, else the copy inside the wheel.

    Raises:
        BundleError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for path in (package.parent / "exports" / "mini", package / "_bundles" / "mini"):
        if (path / MANIFEST).is_file():
            return path
    raise BundleError("no bundle ships with this installation; name one (--bundle DIR)")


def _open(path: Path) -> Bundle:
    manifest = _read_manifest(path)
    check_numbers(manifest, str(path / MANIFEST))
    check_folder(path, manifest)
    bank = ClassBank.load(path / BANK, manifest.encoder_digest)
    if bank.embeddings.shape[1] != manifest.embed_dim:
        raise BundleError(f"{path / BANK}: rows of {bank.embeddings.shape[1]}, expected {manifest.embed_dim}")
    lost = [name for name in manifest.calibrated if bank.lookup.name(name) is None] if manifest.calibrated else []
    if lost:
        raise BundleError(f"{path / MANIFEST}: field calibrated: {lost[0]!r:.80} is not in the bank")
    return Bundle(path, manifest, bank, _open_head(path, manifest, bank))


def _open_head(path: Path, manifest: Manifest, bank: ClassBank) -> ClassHead | None:
    if manifest.head is None:
        return None
    head = ClassHead.load(path / HEAD, manifest.encoder_digest)
    if head.weight.shape[1] != manifest.embed_dim:
        raise BundleError(f"{path / HEAD}: rows of {head.weight.shape[1]}, expected {manifest.embed_dim}")
    known = {name_key(name) for name in bank.names}
    seen: set[str] = set()
    for name in head.names:
        key = name_key(name)
        if key not in known:
            raise BundleError(f"{path / HEAD}: class {name!r} is not in the bundle's bank")
        if key in seen:
            raise BundleError(f"{path / HEAD}: class {name!r} differs from another in case or space alone")
        seen.add(key)
    return head


def _read_manifest(path: Path) -> Manifest:
    source = path / MANIFEST
    if not source.is_file():
        what = "has no manifest.json" if path.is_dir() else "no such folder"
        raise BundleError(f"{path}: {what}; expected a bundle folder, as sar-export writes it")
    try:
        return Manifest.parse(source.read_text("utf-8"), str(source))
    except UnicodeDecodeError as error:
        raise BundleError(f"{source}: not UTF-8 text ({error})") from None
