"""The commands that change classes: ``add``, ``remove``, ``move``, ``rename``, ``set``, ``rollback``, ``undo``."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import (
    SUFFIX,
    BankArguments,
    Workspace,
    again,
    classes_option,
    counted,
    exclude_option,
    locked,
    on_bank,
    opened,
    own_option,
    photos_option,
    read_phrases,
    show_findings,
    write,
)
from sar_infer.cli.options import Refusal
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.evaluation.findings import Finding
    from sar_infer.text.names import Phrases

_CHUNK = 2048
"""Number of classes that are embedded together."""


@on_bank(
    {
        "Classes": "classes photos photos_only exclude",
        "Scores": "background threshold",
        "Checks": "strict skip_unreadable",
    }
)
@click.argument("names", nargs=-1)
@classes_option
@photos_option(
    "PATH",
    "Photos of the named class: files, folders or patterns. Without a name: a folder with one folder for each "
    "class, or a CSV file with columns class and photo. Repeatable.",
    required=False,
)
@own_option("--photos-only", is_flag=True, help='Use only the photos, since the names have no meaning ("SKU-12345").')
@own_option("--background", is_flag=True, help="Include in the softmax, never predict.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which the classes are predicted.")
@exclude_option
@own_option("--strict", is_flag=True, help="Add nothing if there is a warning.")
@own_option("--skip-unreadable", is_flag=True, help="Leave out photos that cannot be read, and list them.")
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
    skip_unreadable: bool,
) -> None:
    """Add classes to BANK_FILE, by names, photos or both.

    A NAME is "name", or "name = phrase | phrase" to average several phrasings.

    \b
    sar-bank add shop.safetensors hat --photos 1.jpg --photos 2.jpg --photos hats/
    sar-bank add shop.safetensors --photos photos/

    A class that exists gets a new embedding and keeps its settings. With --photos it gets more photos and keeps its
    embedding. A photo teaches one class. Given to another class, it moves there.
    """  # noqa: D301 - \b is for click
    _check_call(arguments, names, classes, photos, photos_only=photos_only)
    from sar_infer.bank import edits
    from sar_infer.classify.fitting import fit_advice
    from sar_infer.cli.bank.photos import checked, files_by_class, read_photos
    from sar_infer.cli.evaluating import report_labels
    from sar_infer.evaluation.findings import name_findings
    from sar_infer.evaluation.labels import LIST

    before = opened(arguments, may_be_missing=True, changing=True)
    named = read_phrases(names, classes, before.classifier.check_name if photos_only else len)
    files = files_by_class(before.bank.lookup, named, photos, exclude)
    phrases = dict.fromkeys(files) | {name: None if texts == (name,) else texts for name, texts in named.items()}
    texts = edits.texts_to_embed(before.bank, phrases, files)
    findings = [] if photos_only else name_findings(before.bank, before.bundle, texts)
    _refuse(findings, strict=strict)
    rows = _embedded(before, texts, files)
    read = read_photos(before.classifier, files, photos_only=photos_only, skip_unreadable=skip_unreadable)
    check = checked(before, read)
    findings += check.confused()
    _refuse(findings, strict=strict)
    show_findings(findings)
    title, undo = f"Photos of {arguments.file.name}", again(arguments, "rollback", "--steps", "1")
    following = f"{undo}; then the same command with --exclude {LIST}"
    report_labels(check, arguments.labels_page, title, following, strict=strict)

    settings = ({"background": True} if background else {}) | ({} if threshold is None else {"threshold": threshold})

    def embed(now: Phrases, photographed: Container[str]) -> Floats:
        return rows if now == texts else before.classifier.class_rows(now, photographed)

    with locked(before) as workspace:
        bank = workspace.bank
        after = edits.put_classes(bank, phrases, read.sets, embed, settings, by="sar-bank add")
        issues = [asdict(issue) for issue in check.issues]
        words = "is a class" if len(named) == 1 else f"and {len(named) - 1:,} more are classes"
        files_of = {digest: path for (_, digest), path in read.files.items()}
        moved = [{"photo": files_of[one.digest], "from": one.old} for one in edits.moves(bank, read.sets)]
        why = "" if photos else f": {next(iter(named))!r} {words} already"
        reported = [asdict(one) for one in findings]
        write(arguments, workspace, after, why, findings=reported, label_issues=issues, moved=moved)
    if photos and (reason := fit_advice(bank, after)):
        click.echo(one_line(f"{reason}: {again(arguments, 'fit')}"), err=True)


def _check_call(
    arguments: BankArguments, names: Sequence[str], classes: Path | None, photos: Sequence[str], *, photos_only: bool
) -> None:
    """Raise Refusal if the arguments of ``add`` name no class, or contradict each other."""
    if not names and classes is None and not photos:
        file = str(arguments.file)
        hint = "" if arguments.file.suffix == SUFFIX else f" ({file!r} was taken as BANK_FILE)"
        raise Refusal(f"no class given{hint}; add a NAME, --classes FILE or --photos FOLDER")
    if photos_only and not photos:
        raise Refusal(
            "--photos-only needs --photos; for classes in the bank: sar-bank set BANK_FILE CLASS --photos-only"
        )
    if photos and (len(names) > 1 or classes is not None):
        raise Refusal(
            "--photos goes with one class name, or with none and a folder of class folders or a CSV list; repeat it "
            "for more files"
        )
    if path := next((name for name in names if os.sep in name and os.path.exists(name)), None):  # noqa: PTH110 - any text
        command = again(arguments, "add", "CLASS", "--photos", path)
        raise Refusal(f"{path} is a {'folder' if Path(path).is_dir() else 'file'}; to add photos: {command}")


def _embedded(workspace: Workspace, phrases: Phrases, photographed: Container[str]) -> Floats:
    """Return unit embeddings (N, D), made chunk by chunk."""
    import numpy as np

    items, embed = [*phrases.items()], workspace.classifier.class_rows
    chunks = (dict(items[start : start + _CHUNK]) for start in range(0, len(items), _CHUNK))
    rows = [embed(chunk, photographed) for chunk in counted(chunks, len(items), "Embedding", len, _CHUNK)]
    return np.concatenate([np.empty((0, workspace.bank.dim), np.float32), *rows])


def _refuse(findings: Sequence[Finding], *, strict: bool) -> None:
    """Refuse to add anything if a name cannot be embedded, or with ``strict`` if there is a warning.

    Raises:
        Refusal: Nothing is added.
    """
    bad = [finding for finding in findings if strict or finding.kind == "too-long"]
    if bad:
        show_findings(bad)
        reason = "--strict, and there are warnings" if strict else "not all of them can be embedded"
        raise Refusal(f"nothing was added: {reason} ({len(bad):,} finding{'s' if len(bad) > 1 else ''})")


@on_bank({"Classes": "classes photos"})
@click.argument("names", nargs=-1)
@own_option("--classes", type=click.Path(path_type=Path), help="Text file of names to remove, one per line.")
@photos_option(
    "PATH",
    "Remove only these photos of the named class, also from the history: files, folders or patterns. Repeatable.",
    required=False,
)
def remove(arguments: BankArguments, names: Sequence[str], classes: Path | None, photos: Sequence[str]) -> None:
    """Remove classes, by name or alias.

    Nothing is removed if one of them does not exist. With --photos the class stays, and its photos are removed. That
    cannot be undone.
    """
    from sar_infer.bank import edits
    from sar_infer.cli.bank.photos import digests_of
    from sar_infer.text.names import read_class_file

    if not names and classes is None:
        raise Refusal("no class given; add a NAME or --classes FILE")
    if photos and (len(names) != 1 or classes is not None):
        raise Refusal("--photos needs one class: sar-bank remove BANK_FILE CLASS --photos PATH")
    listed = [] if classes is None else read_class_file(classes).classes
    before = opened(arguments, changing=True)
    digests = digests_of(before, photos)
    with locked(before) as workspace:
        if photos:
            after = edits.forget_photos(workspace.bank, names[0], digests, by="sar-bank remove --photos")
        else:
            after = edits.remove(workspace.bank, [*names, *listed], by="sar-bank remove")
        if not len(after.names):
            raise Refusal(f"class {workspace.bank.names[-1]!r} is the last one; add another one first")
        write(arguments, workspace, after)


@on_bank({"Options": "to"})
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@own_option("--to", required=True, metavar="CLASS", help="Class that the photos show, by name or alias.")
def move(arguments: BankArguments, photos: Sequence[str], to: str) -> None:
    """Move photos of BANK_FILE from their classes to another one.

    A PHOTO is a file, a folder, or a digest as `sar-bank list BANK_FILE CLASS --photos` prints it.
    """
    from sar_infer.bank import move_photos
    from sar_infer.cli.bank.photos import digests_of

    before = opened(arguments, changing=True)
    digests = digests_of(before, photos)
    with locked(before) as workspace:
        after = move_photos(workspace.bank, digests, to, by="sar-bank move")
        write(arguments, workspace, after, f": {to!r} has these photos already")


@on_bank({"Options": "embed"})
@click.argument("old")
@click.argument("new")
@own_option("--embed", is_flag=True, help="Also embed the new name.")
def rename(arguments: BankArguments, old: str, new: str, *, embed: bool) -> None:
    """Rename a class. It keeps its position and the embedding of its old name."""
    from sar_infer.bank import rename as edit

    before = opened(arguments, changing=True)
    row = before.classifier.embed_names([new])[0] if embed else None
    with locked(before) as workspace:
        write(arguments, workspace, edit(workspace.bank, old, new, row, by="sar-bank rename"))


@on_bank(
    {
        "Names": "aliases no_aliases photos_only",
        "Scores": "threshold no_threshold background",
        "Of the bank, without CLASS": "unknown_threshold no_unknown_threshold",
    },
    "set",
)
@click.argument("name", metavar="[CLASS]", required=False)
@own_option("--alias", "aliases", multiple=True, metavar="NAME", help="Add another name. Repeatable.")
@own_option("--no-alias", "no_aliases", multiple=True, metavar="NAME", help="Remove this alias. Repeatable.")
@own_option("--threshold", type=click.FloatRange(0, 1), help="Lowest score at which the class is predicted.")
@own_option("--no-threshold", is_flag=True, help="Predict the class at any score.")
@own_option("--background/--foreground", default=None, help="Include in the softmax, never predict.")
@own_option("--photos-only/--named", default=None, help="Use only its photos, since its name has no meaning; or both.")
@own_option(
    "--unknown-threshold", type=click.FloatRange(0, 1), help="Probability above which an image is called unknown."
)
@own_option("--no-unknown-threshold", is_flag=True, help="Use the threshold of the calibration, or of the class model.")
def set_class(  # noqa: PLR0913 - one for each option
    arguments: BankArguments,
    name: str | None,
    *,
    unknown_threshold: float | None,
    no_unknown_threshold: bool,
    aliases: Sequence[str],
    no_aliases: Sequence[str],
    threshold: float | None,
    no_threshold: bool,
    background: bool | None,
    photos_only: bool | None,
) -> None:
    """Change a class, or the threshold of unknown.

    A class of BANK_FILE has aliases, a threshold and a use.

    \b
    sar-bank set shop.safetensors hat --alias cap
    sar-bank set shop.safetensors --unknown-threshold 0.3
    """  # noqa: D301 - \b is for click
    from sar_infer.bank import edits

    of_bank = _is_set("unknown-threshold", unknown_threshold, no_unknown_threshold)
    flags = {"background": background, "photos_only": photos_only}
    settings: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    settings |= {"threshold": threshold} if _is_set("threshold", threshold, no_threshold) else {}
    of_class = bool(settings or aliases or no_aliases)
    if not of_class and not of_bank:
        raise Refusal("nothing to set; see sar-bank set --help")
    if of_class == of_bank or of_class != (name is not None):
        raise Refusal(
            "a class has --alias, --threshold, --background and --photos-only, and the bank --unknown-threshold; give "
            "CLASS with the former and leave it out with the latter"
        )
    with locked(opened(arguments, changing=True)) as workspace:
        bank = workspace.bank
        if name is None:
            after = edits.set_unknown_threshold(bank, unknown_threshold, by="sar-bank set")
        else:
            entry = bank.entry(name)
            if photos_only and not len(entry.photos):
                raise Refusal(f"{name!r} has no photos, so its name is needed; add some with sar-bank add --photos")
            if aliases or no_aliases:
                settings["aliases"] = _aliases(name, entry.aliases, aliases, no_aliases)
            after = edits.set_class(bank, name, by="sar-bank set", **settings)
        write(arguments, workspace, after)


def _is_set(option: str, value: float | None, dropped: bool) -> bool:
    """Return True if a threshold is to be set, or with ``--no-`` dropped."""
    if dropped and value is not None:
        raise Refusal(f"--{option} and --no-{option} contradict each other; leave one out")
    return dropped or value is not None


def _aliases(name: str, present: Sequence[str], more: Sequence[str], gone: Sequence[str]) -> list[str]:
    """Return the aliases of a class with some more and without others."""
    from sar_infer.text.names import name_key

    by_key = {name_key(alias): alias for alias in present}
    if missing := [alias for alias in gone if name_key(alias) not in by_key]:
        raise Refusal(f"{missing[0]!r} is no alias of {name!r}; it has {', '.join(present) or 'none'}")
    every = {name_key(alias): alias for alias in more} | by_key
    return [every[key] for key in every if key not in {name_key(alias) for alias in gone}]


@on_bank({"Options": "to steps"})
@own_option("--to", type=click.IntRange(min=0), help="Step to go back to; 0: the beginning.")
@own_option("--steps", type=click.IntRange(min=1), help="Number of steps to undo.")
def rollback(arguments: BankArguments, to: int | None, steps: int | None) -> None:
    """Go back to an earlier step of the history.

    `sar-bank history` lists the steps. A rollback is a step too, and cannot be undone.
    """
    from sar_infer.bank import edits

    if (to is None) == (steps is None):
        raise Refusal("expected --to STEP or --steps COUNT; sar-bank history BANK_FILE lists the steps")
    with locked(opened(arguments, changing=True)) as workspace:
        target = edits.steps_back(workspace.bank, steps or 0) if to is None else to
        write(arguments, workspace, edits.rollback(workspace.bank, target, by="sar-bank rollback"))


@on_bank({})
def undo(arguments: BankArguments) -> None:
    """Undo the latest step, as `sar-bank rollback --steps 1`."""
    from sar_infer.bank import edits

    with locked(opened(arguments, changing=True)) as workspace:
        target = edits.steps_back(workspace.bank, 1)
        write(arguments, workspace, edits.rollback(workspace.bank, target, by="sar-bank undo"))
