"""Freezing: a new bundle with the encoders of a bundle and the classes of an edited bank."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.edits import utc_now
from sar_infer.bank.entry import LEARNED, MODEL, Entry
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.manifest import BANK, CARD, STATISTICS, Manifest
from sar_infer.bundle.writing import link_or_copy, seal, staged
from sar_infer.errors import BankError


def freeze(bundle: Bundle, bank: ClassBank, out: Path, *, overwrite: bool = False, command: str = "") -> Manifest:
    """Write a bundle whose classes are those of a bank; the old bundle is not touched.

    The new manifest keeps the figures of the old bundle, with a note on their origin. Thresholds and conformal sets are
    kept only if all calibrated classes have the row and the photos that they had, none became background, and the bank
    has the same class statistics. The history of the bank is left out.

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
    trained = any(bundle.bank.records.get(key) is not bank.records.get(key) for key in (MODEL, LEARNED))
    before = {
        bundle.bank.names[position]: position
        for name in old.calibrated
        if (position := bundle.bank.lookup.name(name)) is not None
    }
    after = bank.positions_from(bundle.bank, [*before.values()]).tolist()
    calibrated = [
        new
        for name, position in zip(before, after, strict=True)
        if position >= 0 and _answers_as(bundle.bank.entry(name), bank.entry(new := bank.names[position]))
    ]
    manifest = dataclasses.replace(
        old,
        calibrated=() if trained else tuple(calibrated),
        provenance=dataclasses.replace(
            origin, created=utc_now(), command=command, versions={**origin.versions, "sar-clip": version("sar-clip")}
        ),
    )
    if old.calibrated and (trained or len(calibrated) < len(old.calibrated)):
        notes.append("thresholds and conformal sets were left out: calibrated classes or class statistics have changed")
        manifest = dataclasses.replace(manifest, thresholds={}, conformal={})
    quality = dataclasses.replace(old.quality, notes=(*old.quality.notes, *notes))
    with staged(out, overwrite=overwrite) as folder:
        for name in old.files.keys() - {BANK, CARD, STATISTICS}:
            link_or_copy(bundle.path / name, folder / name)
        bank.settled().save(folder / BANK)
        if bundle.statistics is not None:
            bundle.statistics.for_bank(bundle.bank, bank).save(folder / STATISTICS)
        sealed = seal(folder, dataclasses.replace(manifest, quality=quality), bank)
        open_bundle(folder)
    return sealed


def _answers_as(one: Entry, two: Entry) -> bool:
    """Return True if two entries with the same embedding have the same photos and are both background or both not."""
    return ({*one.photos}, one.photos_only, one.background) == ({*two.photos}, two.photos_only, two.background)
