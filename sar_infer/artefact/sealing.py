"""The last step of everything that writes a bundle: the model card, the list of files, the sealed manifest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sar_infer.artefact.card import card
from sar_infer.artefact.manifest import CARD, MANIFEST, Manifest, file_entry
from sar_infer.bank import ClassBank
from sar_infer.storage.files import write_file


def seal(folder: Path, manifest: Manifest, bank: ClassBank) -> Manifest:
    """Write card and manifest for the files that are in a folder.

    Args:
        folder: Holds every other file of the bundle. A card that is there is replaced, never written through: it may
            be a hard link to another bundle's.
        manifest: What to say; ``files`` and ``digest`` are made here.
        bank: The one in the folder.

    Returns:
        The manifest as it was written.

    Raises:
        BundleError: a field of the manifest has the wrong type.
        OSError: the folder cannot be written to.
    """
    (folder / CARD).unlink(missing_ok=True)
    write_file(folder / CARD, card(manifest, bank).encode())
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {path.name: file_entry(path) for path in sorted(folder.iterdir())}
    sealed = dataclasses.replace(manifest, files=files).sealed()
    write_file(folder / MANIFEST, sealed.dump().encode())
    return sealed
