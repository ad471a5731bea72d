"""The commands that change a bank: ``add``, ``remove``, ``rename``, ``alias``, ``set``, ``merge``, ``rollback``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sar_infer.cli.bank.common import (
    SUFFIX,
    BankArguments,
    Workspace,
    again,
    changing,
    counted,
    on_bank,
    own_option,
    read_phrases,
    save,
    shared_options,
    shown,
    write,
)
from sar_infer.cli.bank.fitting import advice
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.bank import ClassBank, ClassInfo
    from sar_infer.evaluation import Finding
    from sar_infer.text.names import Phrases

_MOST_SHOWN = 20
_CHUNK = 2048
"""Number of classes that are embedded together."""


@dataclass(frozen=True)
class AddOptions:
    """The command line of ``sar-bank add``; every field is the option of that name."""

    names: Sequence[str]
    classes: Path | None
    photos: Sequence[str]
    photos_only: bool
    background: bool
    threshold: float | None
    strict: bool

    def check(self, file: Path) -> None:
        """Raise Refusal if the options say nothing, or contradict each other; ``file`` is BANK_FILE."""
        if not self.names and self.classes is None and not self.photos:
            hint = "" if file.suffix == SUFFIX else f" ({str(file)!r} was taken as BANK_FILE)"
            raise Refusal(f"no class given{hint}; name one, a file of them (--classes), or --photos")
        if self.photos_only and not self.photos:
            raise Refusal(
                "--photos-only needs --photos; for classes in the bank: sar-bank set BANK_FILE CLASS --photos-only"
            )
        if self.photos and (len(self.names) > 1 or self.classes is not None):
            raise Refusal(
                "--photos goes with one class name, or with none and a folder of class folders or a CSV list; repeat "
                "it for more files"
            )


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names, one per line.")
@own_option(
    "--photos",
    multiple=True,
    metavar="PATH",
    help="Photos of the one class that is named: files, folders or patterns; with no name, one folder for each class, "
    "or a CSV file with the columns class and photo.",
)
@own_option("--photos-only", is_flag=True, help='The names carry no meaning ("SKU-12345"): use the photos alone.')
@own_option("--background", is_flag=True, help="Give them a share of the score, but never answer with them.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which they count as an answer.")
@own_option("--strict", is_flag=True, help="Add nothing if there is a warning.")
@shared_options
def add(arguments: BankArguments, **values: Any) -> None:
    """Add classes to BANK_FILE, by names, photos or both.

    A NAME is "name", or "name = phrase | phrase" to average several phrasings.

    A class that the bank has already gets the new phrases, and keeps its place; with --photos it gets these photos
    beside those that it has, and keeps its embedding.
    """
    options = AddOptions(**values)
    options.check(arguments.file)
    from sar_infer.bank import add as edit
    from sar_infer.bank.edits import positions_of
    from sar_infer.cli.bank import photos as from_photos
    from sar_infer.evaluation import name_findings

    with changing(arguments) as workspace:
        check = workspace.classifier.check_name if options.photos_only else len
        class_phrases = read_phrases(options.names, options.classes, check)
        files = from_photos.files_by_class(workspace.bank, class_phrases, options.photos)
        class_phrases = from_photos.texts_to_embed(workspace.bank, class_phrases, files)
        findings = [] if options.photos_only else name_findings(workspace.bank, workspace.bundle, class_phrases)
        _refuse(findings, strict=options.strict)
        positions_of(workspace.bank, [*class_phrases])  # refuses a bad name before minutes are spent on embedding
        rows = _embedded(workspace, class_phrases)
        photos = from_photos.read_photos(workspace, files, photos_only=options.photos_only)
        class_phrases, rows = from_photos.with_bank_rows(workspace.bank, class_phrases, rows, files)
        info = _info_to_add(workspace.bank, class_phrases, options)
        after = edit(workspace.bank, [*class_phrases], rows, info, photos.sets, by="sar-bank add")
        findings += from_photos.findings_of(workspace, after, photos)
        _refuse(findings, strict=options.strict)
        _show(findings)
        write(arguments, workspace, after, findings=[asdict(finding) for finding in findings])
        if options.photos and (line := advice(arguments, workspace.bank, after)):
            click.echo(one_line(line), err=True)


def _embedded(workspace: Workspace, class_phrases: Phrases) -> Floats:
    """Return unit rows (N, D), made chunk by chunk."""
    import numpy as np

    groups = [*class_phrases.values()]
    chunks = (groups[start : start + _CHUNK] for start in range(0, len(groups), _CHUNK))
    rows = [workspace.classifier.embed_phrases(chunk) for chunk in counted(chunks, len(groups), "Embedding", _CHUNK)]
    return np.concatenate([np.empty((0, workspace.bundle.manifest.embed_dim), np.float32), *rows])


def _refuse(findings: Sequence[Finding], *, strict: bool) -> None:
    """Refuse to add anything if a name cannot be embedded, or with ``strict`` if there is a warning.

    Raises:
        Refusal: nothing is added.
    """
    bad = [finding for finding in findings if strict or finding.kind == "too-long"]
    if bad:
        _show(bad)
        reason = "--strict, and there are warnings" if strict else "not all of them can be embedded"
        raise Refusal(f"nothing was added: {reason} ({len(bad):,} finding{'s' if len(bad) > 1 else ''})")


def _show(findings: Sequence[Finding]) -> None:
    for line in shown(findings, _MOST_SHOWN):
        click.echo(one_line(line), err=True)


def _info_to_add(bank: ClassBank, class_phrases: Phrases, options: AddOptions) -> dict[str, ClassInfo]:
    """Return the info of each class to add: the given values, else those that the bank has."""
    from sar_infer.bank import ClassInfo

    plain, result = ClassInfo(), {}
    for name, phrases in class_phrases.items():
        row = bank.lookup.name(name)
        was = plain if row is None else bank.info_of(bank.names[row])
        result[name] = dataclasses.replace(
            was,
            phrases=() if phrases == (name,) else phrases,
            background=options.background or was.background,
            threshold=was.threshold if options.threshold is None else options.threshold,
        )
    return result


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names to remove, one per line.")
@own_option(
    "--photos",
    multiple=True,
    metavar="PATH",
    help="Remove only these photos from the one class that is named: files, folders or patterns.",
)
@shared_options
def remove(arguments: BankArguments, names: Sequence[str], classes: Path | None, photos: Sequence[str]) -> None:
    """Remove classes, by name or alias.

    If one of them is not there, none is removed.

    To drop an alias and keep its class: sar-bank alias BANK_FILE CLASS ALIAS --remove
    """
    from sar_infer.bank import remove as edit
    from sar_infer.bank import remove_photos
    from sar_infer.bank.edits import aliases_among
    from sar_infer.cli.bank import photos as from_photos
    from sar_infer.text.names import read_class_file

    if not names and classes is None:
        raise Refusal("no class given; name one, or a file of them (--classes)")
    if photos and (len(names) != 1 or classes is not None):
        raise Refusal("--photos goes with one class name")
    listed = [] if classes is None else read_class_file(classes).classes
    with changing(arguments) as workspace:
        if photos:
            digests = from_photos.counted_for(workspace, names[0], photos)
            write(arguments, workspace, remove_photos(workspace.bank, names[0], digests, by="sar-bank remove --photos"))
            return
        after = edit(workspace.bank, [*names, *listed], by="sar-bank remove")
        if not len(after.names):
            raise Refusal(f"class {workspace.bank.names[-1]!r} is the last one; add another before you remove it")
        write(arguments, workspace, after)
        for name, alias in [*aliases_among(workspace.bank, [*names, *listed]).items()][:_MOST_SHOWN]:
            command = again(arguments, "alias", name, alias, "--remove")
            click.echo(one_line(f"to drop the alias {alias!r} alone, undo this, then: {command}"), err=True)


@click.command()
@on_bank
@click.argument("old")
@click.argument("new")
@own_option("--embed", is_flag=True, help="Embed the new name; otherwise it keeps its embedding.")
@shared_options
def rename(arguments: BankArguments, old: str, new: str, *, embed: bool) -> None:
    """Give a class another name. It keeps its place and its embedding, which was made from its old name."""
    from sar_infer.bank import rename as edit

    with changing(arguments) as workspace:
        after = edit(workspace.bank, old, new, by="sar-bank rename")
        if embed:
            row = workspace.classifier.embed_names([new])[0]
            after = edit(workspace.bank, old, new, row, by="sar-bank rename --embed")
        write(arguments, workspace, after)


@click.command()
@on_bank
@click.argument("name", metavar="CLASS")
@click.argument("aliases", nargs=-1, required=True, metavar="ALIAS...")
@own_option("--remove", is_flag=True, help="Remove these aliases.")
@shared_options
def alias(arguments: BankArguments, name: str, aliases: Sequence[str], *, remove: bool) -> None:
    """Give a class other names, with the same embedding."""
    from sar_infer.bank import amend
    from sar_infer.text.names import name_key

    with changing(arguments) as workspace:
        info = workspace.bank.info_of(workspace.bank.spelling(name))
        old_aliases = {name_key(text): text for text in info.aliases}
        new_aliases = {name_key(text): text for text in aliases}
        if remove and not new_aliases.keys() <= old_aliases.keys():
            raise Refusal(
                f"{name!r} does not have all of these aliases; it has: {one_line(', '.join(info.aliases)) or 'none'}"
            )
        if remove:
            all_aliases = {key: text for key, text in old_aliases.items() if key not in new_aliases}
        else:
            all_aliases = old_aliases | new_aliases | old_aliases  # the spelling that is there stays
        changed = dataclasses.replace(info, aliases=tuple(all_aliases.values()))
        write(arguments, workspace, amend(workspace.bank, {name: changed}, by="sar-bank alias"))


@click.command("set")
@on_bank
@click.argument("name", metavar="CLASS")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which the class counts as an answer.")
@own_option("--no-threshold", is_flag=True, help="Accept it at any score.")
@own_option(
    "--background/--foreground", default=None, help="Background has a share of the score, but is never the answer."
)
@own_option(
    "--photos-only/--named", default=None, help="Use its photos alone, as its name carries no meaning; or its name too."
)
@shared_options
def set_class(
    arguments: BankArguments,
    name: str,
    threshold: float | None,
    *,
    no_threshold: bool,
    background: bool | None,
    photos_only: bool | None,
) -> None:
    """Set the threshold of a class, and whether it can be an answer.

    With --background it is never the answer; with --photos-only its name does not count.
    """
    from sar_infer.bank import amend, set_photos_only

    if threshold is not None and no_threshold:
        raise Refusal("--threshold and --no-threshold contradict")
    if threshold is None and not no_threshold and background is None and photos_only is None:
        raise Refusal("nothing to set; see sar-bank set --help")
    with changing(arguments) as workspace:
        info = workspace.bank.info_of(workspace.bank.spelling(name))
        if photos_only and not workspace.bank.photos_of(workspace.bank.spelling(name)):
            raise Refusal(f"{name!r} has no photos, so its name has to count; sar-bank add --photos adds some")
        if threshold is not None or no_threshold:
            info = dataclasses.replace(info, threshold=threshold)
        if background is not None:
            info = dataclasses.replace(info, background=background)
        after = amend(workspace.bank, {name: info}, by="sar-bank set")
        if photos_only is not None:
            after = set_photos_only(after, name, photos_only=photos_only, by="sar-bank set")
        write(arguments, workspace, after)


@click.command()
@on_bank
@click.argument("other", type=click.Path(path_type=Path))
@own_option(
    "--conflict",
    type=click.Choice(["keep", "take", "refuse"]),
    default="refuse",
    show_default=True,
    help="Whose embedding to use where both have a class: this bank's, the other's, or neither (stop).",
)
@own_option("--removals", is_flag=True, help="Remove the bundle's classes that the other bank has removed, too.")
@shared_options
def merge(
    arguments: BankArguments, other: Path, conflict: Literal["keep", "take", "refuse"], *, removals: bool
) -> None:
    """Add the classes of another bank file.

    They come with their aliases, thresholds and so on. The names of a file of another encoder are embedded anew; what
    of it cannot come along is listed on stderr.
    """
    from sar_infer.bank import merge as edit
    from sar_infer.bundle.bank_file import replayed as replay

    with changing(arguments) as workspace:
        theirs = replay(other, workspace.bundle, workspace.classifier.embed_phrases)
        _warn(theirs.left_out)
        write(arguments, workspace, edit(workspace.bank, theirs.bank, conflict, removals=removals, by="sar-bank merge"))


@click.command()
@on_bank
@shared_options
def rebase(arguments: BankArguments) -> None:
    """Carry the changes in BANK_FILE over to another bundle.

    It may be one that was trained again. Added names are embedded anew; removals, renames, aliases, thresholds and
    settings are taken along, and photos if both bundles embed images alike. What cannot come along is listed on stderr.
    The history stays.
    """
    from sar_infer.bank.old_files import KIND
    from sar_infer.bundle.bank_file import replayed as replay

    with changing(arguments, may_be_missing=False, opening=False) as workspace:
        before = KIND.encoder_of(workspace.file)
        result = replay(workspace.file, workspace.bundle, workspace.classifier.embed_phrases)
        _warn(result.left_out)
        save(arguments, workspace, result.bank)
        same = before == workspace.bundle.manifest.encoder_digest
        content = {"bank": str(arguments.file), "classes": len(result.bank.names), "left_out": list(result.left_out)}
        text = "belonged to this encoder already" if same else f"carried over from encoder {before[:8]}"
        emit(arguments.form, lambda: content, [f"{text}; {len(result.bank.names):,} classes"])


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(one_line(f"Warning: {line}"), err=True)


@click.command()
@on_bank
@own_option("--to", type=click.IntRange(min=0), help="The step to go back to; 0 is the beginning.")
@own_option("--steps", type=click.IntRange(min=1), help="How many steps to undo.")
@shared_options
def rollback(arguments: BankArguments, to: int | None, steps: int | None) -> None:
    """Go back to an earlier step of the history.

    `sar-bank history` lists the steps. Going back is a step too, and cannot be undone.
    """
    from sar_infer.bank import rollback as edit
    from sar_infer.bank.edits import steps_back

    if (to is None) == (steps is None):
        raise Refusal("expected either --to STEP or --steps COUNT")
    with changing(arguments, may_be_missing=False) as workspace:
        target = steps_back(workspace.bank.log, steps or 0) if to is None else to
        write(arguments, workspace, edit(workspace.bank, target, by="sar-bank rollback"))
