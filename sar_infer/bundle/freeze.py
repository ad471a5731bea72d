"""Freezing: a new bundle with the encoders of a bundle and the classes of an edited bank."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import BANK, CARD, CLASS_MODEL, Manifest
from sar_infer.bundle.writing import link_or_copy, seal, staged
from sar_infer.errors import BankError


def freeze(bundle: Bundle, bank: ClassBank, out: Path, *, overwrite: bool = False, command: str = "") -> Manifest:
    """Write a bundle whose classes are those of a bank; the old bundle is not touched.

    The new manifest keeps the figures of the old bundle, with a note on their origin. The history of the bank is left
    out.

    Args:
        bundle: Gives everything but the bank; its files are hard-linked if possible, otherwise copied.
        bank: A bank of the same encoder.
        out: The new folder.
        overwrite: Replace an existing bundle.
        command: The command line, for the provenance.

    Returns:
        The manifest of the new bundle, which has been opened as a check.

    Raises:
        BankError: The bank belongs to another encoder, is damaged, or has no class that can be an answer.
        InputError: Something is at ``out`` that may not be replaced.
        WriteError: The bundle cannot be written; nothing was changed.
    """
    old, origin = bundle.manifest, bundle.manifest.provenance
    if bank.encoder_digest != old.encoder_digest or bank.dim != old.embed_dim:
        raise BankError(
            f"bank of another encoder: expected {old.encoder_digest} with rows of {old.embed_dim}, "
            f"the bank has {bank.encoder_digest} with rows of {bank.dim}"
        )
    if not bank.can_answer:
        raise BankError(f"the bank has no class{' but background' if len(bank.names) else ''}; a bundle needs one")
    notes = [
        f"made from bundle {old.digest} ({origin.created}, {origin.command}) of {len(bundle.bank.names):,} classes, "
        "whose figures these are"
    ]
    quality = dataclasses.replace(old.quality, notes=(*old.quality.notes, *notes))
    with staged(out, overwrite=overwrite) as folder:
        for name in old.files.keys() - {BANK, CARD, CLASS_MODEL}:
            link_or_copy(bundle.path / name, folder / name)
        bank.settled().replaced(provenance={"origin": "sar-bundle freeze"}).save(folder / BANK)
        if bundle.trained is not None:
            bundle.trained.for_bank(bundle.bank, bank).save(folder / CLASS_MODEL)
        frozen = dataclasses.replace(old, quality=quality)
        return seal(folder, frozen, bank, command, {"sar-clip": version("sar-clip")}).manifest
