"""The commands that change classes: ``add``, ``remove``, ``rename``, ``set``, ``rollback``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import (
    SUFFIX,
    BankArguments,
    Workspace,
    again,
    changing,
    counted,
    exclude_option,
    on_bank,
    own_option,
    read_phrases,
    shared_options,
    shown,
    write,
)
from sar_infer.cli.bank.creating import advice
from sar_infer.cli.options import Refusal
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.bank import ClassBank
    from sar_infer.evaluation import Finding
    from sar_infer.text.names import Phrases

_MOST_SHOWN = 20
_CHUNK = 2048
"""Number of classes that are embedded together."""


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
@own_option("--background", is_flag=True, help="Include in the softmax, never predict.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which they are predicted.")
@exclude_option
@own_option("--strict", is_flag=True, help="Add nothing if there is a warning.")
@shared_options
def add(  # noqa: PLR0913 - one for each option
    arguments: BankArguments,
    *,
    names: Sequence[str],
    classes: Path | None,
    photos: Sequence[str],
    photos_only: bool,
    background: bool,
    threshold: float | None,
    exclude: Path | None,
    strict: bool,
) -> None:
    """Add classes to BANK_FILE, by names, photos or both.

    A NAME is "name", or "name = phrase | phrase" to average several phrasings.

    A class that the bank has is embedded anew and keeps its settings. With --photos it gets these photos beside those
    that it has, and keeps its embedding.
    """
    if not names and classes is None and not photos:
        file = str(arguments.file)
        hint = "" if arguments.file.suffix == SUFFIX else f" ({file!r} was taken as BANK_FILE)"
        raise Refusal(f"no class given{hint}; name one, a file of them (--classes), or --photos")
    if photos_only and not photos:
        raise Refusal(
            "--photos-only needs --photos; for classes in the bank: sar-bank set BANK_FILE CLASS --photos-only"
        )
    if photos and (len(names) > 1 or classes is not None):
        raise Refusal(
            "--photos goes with one class name, or with none and a folder of class folders or a CSV list; repeat it "
            "for more files"
        )
    from sar_infer.bank import add as edit
    from sar_infer.bank.edits import check_names
    from sar_infer.cli.bank.photos import checked, files_by_class, read_photos, report_labels
    from sar_infer.evaluation import LIST, name_findings

    with changing(arguments) as workspace:
        bank = workspace.bank
        given = read_phrases(names, classes, workspace.classifier.check_name if photos_only else len)
        files = files_by_class(lambda name: _spelled(bank, name), given, photos, exclude)
        phrases = {
            name: texts for name, texts in given.items() if not (files and texts == (name,) and _spelled(bank, name))
        }
        phrases |= {name: (name,) for name in files if name not in given and not _spelled(bank, name)}
        findings = [] if photos_only else name_findings(bank, workspace.bundle, phrases)
        _refuse(findings, strict=strict)
        check_names(bank, [*phrases])
        rows = _embedded(workspace, phrases)
        read = read_photos(workspace, files, photos_only=photos_only)
        after = edit(
            bank, phrases, rows, read.sets, background=background or None, threshold=threshold, by="sar-bank add"
        )
        check = checked(workspace, read)
        findings += check.confused()
        _refuse(findings, strict=strict)
        _show(findings)
        undo = again(arguments, "rollback", "--steps", "1")
        report_labels(arguments, check, f"{undo}; then the same command with --exclude {LIST}", strict=strict)
        issues = [asdict(issue) for issue in check.issues]
        write(arguments, workspace, after, findings=[asdict(finding) for finding in findings], label_issues=issues)
        if photos and (line := advice(arguments, bank, after)):
            click.echo(one_line(line), err=True)


def _spelled(bank: ClassBank, name: str) -> str | None:
    return None if (position := bank.lookup.get(name)) is None else bank.names[position]


def _embedded(workspace: Workspace, phrases: Phrases) -> Floats:
    """Return unit embeddings (N, D), made chunk by chunk."""
    import numpy as np

    groups = [*phrases.values()]
    chunks = (groups[start : start + _CHUNK] for start in range(0, len(groups), _CHUNK))
    rows = [workspace.classifier.embed_phrases(chunk) for chunk in counted(chunks, len(groups), "Embedding", _CHUNK)]
    return np.concatenate([np.empty((0, workspace.bank.dim), np.float32), *rows])


def _refuse(findings: Sequence[Finding], *, strict: bool) -> None:
    """Refuse to add anything if a name cannot be embedded, or with ``strict`` if there is a warning.

    Raises:
        Refusal: Nothing is added.
    """
    bad = [finding for finding in findings if strict or finding.kind == "too-long"]
    if bad:
        _show(bad)
        reason = "--strict, and there are warnings" if strict else "not all of them can be embedded"
        raise Refusal(f"nothing was added: {reason} ({len(bad):,} finding{'s' if len(bad) > 1 else ''})")


def _show(findings: Sequence[Finding]) -> None:
    for line in shown(findings, _MOST_SHOWN):
        click.echo(one_line(line), err=True)


@click.command()
@on_bank
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file with names to remove, one per line.")
@own_option(
    "--photos",
    multiple=True,
    metavar="PATH",
    help="Forget only these photos of the one class that is named, in its history too: files, folders or patterns.",
)
@shared_options
def remove(arguments: BankArguments, names: Sequence[str], classes: Path | None, photos: Sequence[str]) -> None:
    """Remove classes, by name or alias.

    If one of them is not there, none is removed. With --photos the class stays, and photos are removed from the file;
    that cannot be undone.
    """
    from sar_infer.bank import forget_photos
    from sar_infer.bank import remove as edit
    from sar_infer.cli.bank.photos import counted_for
    from sar_infer.text.names import read_class_file

    if not names and classes is None:
        raise Refusal("no class given; name one, or a file of them (--classes)")
    if photos and (len(names) != 1 or classes is not None):
        raise Refusal("--photos goes with one class name")
    listed = [] if classes is None else read_class_file(classes).classes
    with changing(arguments, may_be_missing=not photos) as workspace:
        if photos:
            digests = counted_for(workspace, names[0], photos)
            after = forget_photos(workspace.bank, names[0], digests, by="sar-bank remove --photos")
        else:
            after = edit(workspace.bank, [*names, *listed], by="sar-bank remove")
        if not len(after.names):
            raise Refusal(f"class {workspace.bank.names[-1]!r} is the last one; add another before you remove it")
        write(arguments, workspace, after)


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
        row = workspace.classifier.embed_names([new])[0] if embed else None
        write(arguments, workspace, edit(workspace.bank, old, new, row, by="sar-bank rename"))


@click.command("set")
@on_bank
@click.argument("name", metavar="CLASS")
@own_option("--alias", "aliases", multiple=True, metavar="NAME", help="Give it another name; may be repeated.")
@own_option("--no-alias", "no_aliases", multiple=True, metavar="NAME", help="Drop this alias; may be repeated.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which the class is predicted.")
@own_option("--no-threshold", is_flag=True, help="Predict it at any score.")
@own_option("--background/--foreground", default=None, help="Background is in the softmax and never predicted.")
@own_option(
    "--photos-only/--named", default=None, help="Use its photos alone, as its name carries no meaning; or both."
)
@shared_options
def set_class(
    arguments: BankArguments,
    name: str,
    *,
    aliases: Sequence[str],
    no_aliases: Sequence[str],
    threshold: float | None,
    no_threshold: bool,
    background: bool | None,
    photos_only: bool | None,
) -> None:
    """Set aliases and threshold of a class.

    And whether it is predicted, and known by its name.
    """
    from sar_infer.bank import set_class as edit
    from sar_infer.text.names import name_key

    if threshold is not None and no_threshold:
        raise Refusal("--threshold and --no-threshold contradict")
    settings: dict[str, Any] = {} if background is None else {"background": background}
    settings |= {} if photos_only is None else {"photos_only": photos_only}
    settings |= {"threshold": threshold} if no_threshold or threshold is not None else {}
    if not settings and not aliases and not no_aliases:
        raise Refusal("nothing to set; see sar-bank set --help")
    with changing(arguments) as workspace:
        entry = workspace.bank.entry(name)
        if photos_only and not entry.photos:
            raise Refusal(f"{name!r} has no photos, so its name has to count; sar-bank add --photos adds some")
        if aliases or no_aliases:
            had = {name_key(alias): alias for alias in entry.aliases}
            if missing := [alias for alias in no_aliases if name_key(alias) not in had]:
                raise Refusal(f"{missing[0]!r} is no alias of {name!r}; it has {', '.join(entry.aliases) or 'none'}")
            every = {name_key(alias): alias for alias in aliases} | had
            settings["aliases"] = [every[key] for key in every if key not in {name_key(text) for text in no_aliases}]
        write(arguments, workspace, edit(workspace.bank, name, by="sar-bank set", **settings))


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
        bank = workspace.bank
        target = steps_back(bank, steps or 0) if to is None else to
        after = edit(bank, target, by="sar-bank rollback")
        write(arguments, workspace, after)
        if after.encoder_digest != bank.encoder_digest:
            where = f" ({Path(after.base.path).parent})" if after.base else ""
            click.echo(
                one_line(f"the bank belongs to its earlier bundle again; name it with --bundle{where}"), err=True
            )
