"""Freezing: a new bundle with the encoders of a bundle and the classes of an edited bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from sar_infer.bank import ClassBank
from sar_infer.bank.edits import utc_now
from sar_infer.bank.entry import LEARNED, MODEL, Entry
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.manifest import BANK, CARD, HEAD, MANIFEST, STATISTICS, Manifest, Provenance
from sar_infer.bundle.writing import check_target, link_or_copy, seal, staged
from sar_infer.classifiers.head import ClassHead
from sar_infer.errors import BankError

MEASURED = "measured"
"""Table in ``quality`` of a frozen bundle that says what its figures are about: ``content_digest`` of the bank that
accuracies were measured with, and how many classes were ``calibrated``."""


def freeze(bundle: Bundle, bank: ClassBank, out: Path, *, overwrite: bool = False, command: str = "") -> Manifest:
    """Write a bundle whose classes are those of a bank; the old bundle is not touched.

    The new manifest keeps the figures of the old bundle, with notes on what has changed since. The head is kept only
    if the bank has each of its classes, by whatever name, with an unchanged row; if it is dropped, nothing is
    calibrated any more. Thresholds and conformal sets are kept only if the rows of all calibrated classes are
    unchanged and none became background. The history of the bank is left out.

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
    old = bundle.manifest
    if bank.encoder_digest != old.encoder_digest or bank.dim != old.embed_dim:
        raise BankError(
            f"bank of another encoder: expected {old.encoder_digest} with rows of {old.embed_dim}, "
            f"the bank has {bank.encoder_digest} with rows of {bank.dim}"
        )
    if not bank.can_answer:
        raise BankError(f"the bank has no class{' but background' if len(bank.names) else ''}; a bundle needs one")
    check_target(out, overwrite=overwrite)
    head = _head(bundle, bank)
    manifest = _described(bundle, bank, head, command)
    left_out = {BANK, CARD, MANIFEST, STATISTICS} | (set() if head is bundle.head else {HEAD})
    with staged(out, overwrite=overwrite) as folder:
        for name in old.files.keys() - left_out:
            link_or_copy(bundle.path / name, folder / name)
        bank.settled().save(folder / BANK)
        if head is not None and head is not bundle.head:
            head.save(folder / HEAD)
        if bundle.statistics is not None:
            bundle.statistics.for_bank(bundle.bank, bank).save(folder / STATISTICS)
        sealed = seal(folder, manifest, bank)
        open_bundle(folder)
    return sealed


def _head(bundle: Bundle, bank: ClassBank) -> ClassHead | None:
    """Return the head with the names that its classes have in a bank; None if one is not there as it was."""
    head = bundle.head
    if head is None:
        return None
    names = _unchanged(head.names, bundle.bank, bank)
    if len(names) < len(head.names):
        return None
    return head if all(map(str.__eq__, names, names.values())) else dataclasses.replace(head, names=[*names.values()])


def _described(bundle: Bundle, bank: ClassBank, head: ClassHead | None, command: str) -> Manifest:
    """Return the new manifest without files and digest."""
    old, quality = bundle.manifest, bundle.manifest.quality
    calibrated = _unchanged(old.calibrated, bundle.bank, bank)
    trained_anew = any(bundle.bank.records.get(key) is not bank.records.get(key) for key in (MODEL, LEARNED))
    notes = [_summary(bundle, bank)]
    changes: dict[str, object] = {"calibrated": (*calibrated.values(),)}
    if bundle.head is not None and head is None:
        notes.append(
            "the class head was left out, since not all of its classes are there with the rows they had; what was "
            "calibrated with it went too"
        )
        changes = {"temperature": None, "thresholds": {}, "conformal": {}, "calibrated": (), "calibrated_for": None}
        quality = dataclasses.replace(quality, calibration=None)
    elif trained_anew:
        notes.append("thresholds and conformal sets were left out, since they are of another class model")
        changes = {"thresholds": {}, "conformal": {}, "calibrated": ()}
    elif lost := len(old.calibrated) - len(calibrated):
        notes.append(
            f"thresholds and conformal sets were left out: {lost:,} of the {len(old.calibrated):,} calibrated "
            "classes were removed or changed"
        )
        changes |= {"thresholds": {}, "conformal": {}}
    measured = {MEASURED: {"content_digest": bundle.bank.content_digest, "calibrated": len(old.calibrated)}}
    provenance = Provenance(
        utc_now(),
        command,
        {**old.provenance.versions, "sar-clip": version("sar-clip")},
        old.provenance.licences,
    )
    return dataclasses.replace(
        old,
        head=None if head is None else HEAD,
        quality=dataclasses.replace(quality, notes=(*quality.notes, *notes), tables={**measured, **quality.tables}),
        provenance=provenance,
        **changes,  # type: ignore[arg-type]
    )


def _summary(bundle: Bundle, bank: ClassBank) -> str:
    """Return one line on where the new bundle comes from, and what has changed since."""
    had = bundle.bank.entries
    own = [
        key for key, item in bank.changes.items() if isinstance(item, Entry) and (bank.base is None or key not in had)
    ]
    changed = 0 if bank.base is None else len([key for key in bank.changes if key in had and key in bank.entries])
    removed = len(had) + len(own) - len(bank.entries)
    counts = {"added": len(own), "removed": removed, "changed": changed}
    words = ", ".join(f"{count:,} {label}" for label, count in counts.items() if count)
    made = bundle.manifest.provenance
    return (
        f"made from bundle {bundle.manifest.digest} ({made.created}, {made.command}), whose figures these are; "
        f"classes since: {words or 'no changes'}"
    )


def _unchanged(names: Iterable[str], before: ClassBank, after: ClassBank) -> dict[str, str]:
    """Return names of classes now, by their names before, that have embedding, photos and background flag of before."""
    positions = {name: position for name in names if (position := before.lookup.name(name)) is not None}
    pairs = zip(positions, after.positions_from(before, [*positions.values()]).tolist(), strict=True)
    entries = {
        name: (before.entry(name), after.entries[after.keys[position]]) for name, position in pairs if position >= 0
    }
    return {
        name: now.name
        for name, (then, now) in entries.items()
        if {*then.photos} == {*now.photos} and then.photos_only == now.photos_only and then.background == now.background
    }
