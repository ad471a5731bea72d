"""Opening a bundle: everything in the folder is checked against the manifest before any of it is used."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bundle.checks import check_folder, check_manifest
from sar_infer.bundle.hub import SCHEME, fetch
from sar_infer.bundle.manifest import BANK, CLASS_MODEL, MANIFEST, TOKENIZER, TOKENIZER_JSON, Manifest
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.errors import BankError, BundleError, ClassNameError, SchemaError
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, encode_name

Place = str | os.PathLike[str]
"""A folder, or ``hf://USER/NAME@REVISION`` on a Hugging Face hub."""
SHIPPED = "sar-mini"
"""The name of the bundle that ships."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle.

    Attributes:
        path: The folder with its files.
        trained: The class model and the trained classes; None if the bundle has none.
        origin: Where it was fetched from: a repository at one commit, ``hf://USER/NAME@COMMIT``.
    """

    path: Path
    manifest: Manifest
    bank: ClassBank
    trained: TrainedClasses | None = None
    origin: str | None = None

    @property
    def location(self) -> str:
        """Return what opens the same files again, wherever they came from."""
        return self.origin or str(self.path)

    @property
    def spec(self) -> TokenizerSpec:
        """Return how a name becomes the name encoder's input.

        Raises:
            ClassNameError: The bundle's model has no text tower.
        """
        if self.manifest.tokenizer is None:
            raise ClassNameError(
                f"{self.manifest.backbone} has no text tower, so this bundle knows classes by photos only: "
                f"sar-bank create FILE --photos FOLDER --bundle {shlex.quote(self.location)}"
            )
        return self.manifest.tokenizer

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | JsonTokenizer:
        """Return the tokenizer, which is read on first use: classifying only against the bank does not need it."""
        spec = self.spec
        if spec.kind == "tokenizer.json":
            return JsonTokenizer.open(self.path / TOKENIZER_JSON, spec.clean)
        tokenizer = Tokenizer.open(self.path / TOKENIZER)
        if tokenizer.end_token != spec.end_token:
            raise BundleError(
                f"{self.path / TOKENIZER}: end token is {tokenizer.end_token}, the manifest says {spec.end_token}"
            )
        return tokenizer

    def encode_name(self, name: str) -> list[int]:
        """Return the token ids of a name, as `sar_infer.text.tokenizer.encode_name` does.

        Raises:
            ClassNameError: The name cannot be encoded, or the bundle knows classes by photos only.
            BundleError: The tokenizer cannot be read.
        """
        return encode_name(self.tokenizer, self.spec, name)


def empty_bank(bundle: Bundle) -> ClassBank:
    """Return a bank without classes for the encoder of a bundle."""
    return ClassBank(bundle.bank.encoder_digest, bundle.bank.dim, images=bundle.bank.images)


def open_bundle(path: Place | None = None) -> Bundle:
    """Open and check a bundle.

    Args:
        path: The folder, or ``hf://USER/NAME@REVISION``; None and ``sar-mini`` take ``default_bundle()``.

    Raises:
        InputError: A place on a hub is not understood, or `huggingface_hub` is not installed.
        SchemaError: The manifest has another version.
        BundleError: A file is missing, extra, changed or a link out of the folder; a graph refers to data outside
            itself; the bank or the class model is damaged or belongs to another bundle; a hub does not have it or
            cannot be reached.
    """
    if not on_hub(path):
        try:
            return _open(default_bundle() if path is None or is_shipped(path) else Path(path))
        except (BankError, OSError) as error:
            raise BundleError(str(error)) from None
    folder, origin = fetch(str(path))
    try:
        return dataclasses.replace(_open(folder, cached=True), origin=origin)
    except (BankError, BundleError, OSError) as error:
        if isinstance(error, SchemaError):
            raise
        raise BundleError(
            f"{path}: {error}; if the hub's files are sound, remove {folder.parents[1]} to fetch them again"
        ) from None


def is_shipped(location: Place) -> bool:
    """Return True for ``sar-mini``, unless there is such a folder."""
    return str(location) == SHIPPED and not Path(location).exists()


def on_hub(location: Place | None) -> bool:
    """Return True if a location is on a hub, not a folder."""
    return isinstance(location, str) and location.startswith(SCHEME)


def bundle_name(location: Place) -> str:
    """Return the name of a bundle: its folder's, or that of its repository."""
    if on_hub(location):
        return str(location).removeprefix(SCHEME).partition("@")[0].rpartition("/")[2]
    return Path(location).absolute().name


def default_bundle() -> Path:
    """Return the bundle that ships with the package: ``exports/mini`` of a checkout, or the copy inside the wheel.

    Raises:
        BundleError: Neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for path in (package.parent / "exports" / "mini", package / "_bundles" / "mini"):
        if (path / MANIFEST).is_file():
            return path
    raise BundleError("no bundle ships with this installation; name one (--bundle DIR)")


def _open(path: Path, *, cached: bool = False) -> Bundle:
    source = path / MANIFEST
    if not source.is_file():
        reason = f"has no {MANIFEST}" if path.is_dir() else "no such folder"
        raise BundleError(f"{path}: {reason}; expected a bundle folder, as sar-export writes it")
    try:
        manifest = Manifest.parse(source.read_text("utf-8"), str(source))
    except UnicodeDecodeError as error:
        raise BundleError(f"{source}: not UTF-8 text ({error})") from None
    check_manifest(manifest, str(source))
    check_folder(path, manifest, cached=cached)
    bank = ClassBank.load(path / BANK, manifest.encoder_digest).shared(path / BANK)
    if bank.dim != manifest.embed_dim:
        raise BundleError(f"{path / BANK}: rows of {bank.dim}, expected {manifest.embed_dim}")
    trained = TrainedClasses.load(path / CLASS_MODEL, bank) if CLASS_MODEL in manifest.files else None
    if trained is not None and len(trained.model.centre) != bank.dim:
        raise BundleError(f"{path / CLASS_MODEL}: rows of {len(trained.model.centre)}, expected {bank.dim}")
    return Bundle(path, manifest, bank, trained)
