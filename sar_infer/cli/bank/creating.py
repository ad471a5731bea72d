"""Banks as a whole: ``create``, ``fit`` and ``carry``."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sar_infer.cli.bank.common import (
    BankArguments,
    Workspace,
    again,
    bundle_words,
    cache_option,
    classes_option,
    exclude_option,
    locked,
    on_bank,
    opened,
    own_option,
    photos_option,
    read_phrases,
    save,
    show_findings,
    write,
)
from sar_infer.cli.options import Refusal, emit
from sar_infer.errors import one_line

if TYPE_CHECKING:
    from sar_infer.classify.fitting import BankFitting


@on_bank({"Classes": "classes photos exclude", "Checks": "strict skip_unreadable", "Speed": "cache"})
@photos_option(
    "PATH",
    "Folder with one folder of photos for each class, CSV file with columns class and photo, or Teachable Machine "
    "project (.tm). Repeatable.",
    required=False,
)
@classes_option
@exclude_option
@own_option("--strict", is_flag=True, help="Make nothing if a photo looks like another class.")
@own_option("--skip-unreadable", is_flag=True, help="Leave out photos that cannot be read, and list them.")
@cache_option
def create(
    arguments: BankArguments,
    *,
    photos: Sequence[str],
    classes: Path | None,
    exclude: Path | None,
    strict: bool,
    skip_unreadable: bool,
    cache: Path | None,
) -> None:
    """Make BANK_FILE with only your classes.

    The classes are those of --photos and --classes. Fits the class model if two classes have photos. A line of the
    class file is a name, or "name = phrase | phrase". Takes seconds, without PyTorch.
    """
    from sar_infer.bank.class_bank import Lookup
    from sar_infer.bundle.bank_file import check_place
    from sar_infer.bundle.bundle import empty_bank, open_bundle
    from sar_infer.classify.fitting import content as fit_content
    from sar_infer.cli.bank.photos import checked, files_by_class, read_photos
    from sar_infer.cli.evaluating import report_labels
    from sar_infer.encoders.cache import photo_cache
    from sar_infer.evaluation.compare import encoder_hint
    from sar_infer.evaluation.labels import LIST
    from sar_infer.storage.files import WAIT, owned

    if not photos and classes is None:
        raise Refusal("no class given; add --photos FOLDER, with one folder for each class, or --classes FILE")
    check_place(arguments.file)
    _check_new(arguments, arguments.file)
    bundle = open_bundle(arguments.bundle or None)
    workspace = Workspace(bundle, empty_bank(bundle), arguments.file)
    class_phrases = read_phrases((), classes, workspace.classifier.check_name)
    files = files_by_class(Lookup.of([*class_phrases]), {}, photos, exclude)
    phrases = {**{name: (name,) for name in files}, **class_phrases}
    workspace.classifier.class_rows(phrases, files)  # a name that cannot be embedded ends this before photos are read
    with photo_cache.stored(cache):
        read = read_photos(workspace.classifier, files, skip_unreadable=skip_unreadable)
    check = checked(workspace, read)
    show_findings([*check.confused()])
    better = arguments.file.with_stem(f"{arguments.file.stem}-2")
    sources = [word for path in photos for word in ("--photos", path)] + (["--classes", str(classes)] * bool(classes))
    command = shlex.join(["sar-bank", "create", str(better), *sources, *bundle_words(arguments)])
    title, following = f"Photos of {arguments.file.name}", f"{command} --exclude {LIST}"
    report_labels(check, arguments.labels_page, title, following, strict=strict)
    started = time.perf_counter()
    bank, fitting = workspace.classifier.make_bank(phrases, read.sets, by="sar-bank create")
    seconds = time.perf_counter() - started
    with owned(arguments.file, WAIT) as file:
        _check_new(arguments, file)  # another process may have made it meanwhile
        save(arguments, dataclasses.replace(workspace, file=file), bank)
    content = {
        "bank": str(arguments.file),
        "classes": list(bank.names),
        "photos": sum(map(len, read.sets.values())),
        "fit": fitting and fit_content(fitting),
        "label_issues": [dataclasses.asdict(issue) for issue in check.issues],
    }
    count = f"{len(bank.names):,} class{'' if len(bank.names) == 1 else 'es'}"
    lines = [f"made {arguments.file}: {count}, {content['photos']:,} photos"]
    lines += (
        _lines(fitting, seconds)
        if fitting
        else ["no class model yet: it needs two classes with photos; names rank until then"]
    )
    accuracy = fitting.expected_accuracy if fitting else None
    if accuracy is not None and (hint := encoder_hint(bundle.manifest.backbone, accuracy, photos[0])):
        lines.append(hint)
    classify = shlex.join(["sar-classify", "IMAGE", "--bank", str(arguments.file), *bundle_words(arguments)])
    lines += [f"next: {classify}", f"      {again(arguments, 'evaluate', '--photos', 'OTHER_PHOTOS')}"]
    emit(arguments.form, lambda: content, map(one_line, lines))


@on_bank({})
def fit(arguments: BankArguments) -> None:
    """Fit the class model to the photos of BANK_FILE.

    Takes seconds, without PyTorch. Two classes need photos. If four classes have two photos each, cross-validation over
    classes estimates the accuracy, which is printed. Photos that are added later count in the next answer. Fit again
    after you have added many, for weights and thresholds.
    """
    from sar_infer.bank import edits
    from sar_infer.classify.fitting import content as fit_content

    before, started = opened(arguments, changing=True), time.perf_counter()
    fit_model = edits.ahead(before.bank, before.classifier.fit_model)
    seconds = time.perf_counter() - started
    with locked(before) as workspace:
        fitting = fit_model(workspace.bank)
        after = edits.fit(workspace.bank, fitting.fitted.model.tensors(), by="sar-bank fit")
        write(arguments, workspace, after, fit=fit_content(fitting))
        if arguments.form == "text":
            for line in _lines(fitting, seconds):
                click.echo(line)


@on_bank({})
def carry(arguments: BankArguments) -> None:
    """Move BANK_FILE to another bundle (--bundle).

    It may be a bundle that was trained again. Names are embedded with the new bundle. Names, aliases, thresholds,
    settings and removed classes are kept. Photos are used if both bundles have the same image encoder. Otherwise they
    stay in the file, and are used again when the bank is carried back. The old bundle is not needed. A carry cannot be
    rolled back.
    """
    from sar_infer.bank import edits
    from sar_infer.bank.file import read
    from sar_infer.bundle.bank_file import check_place
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.storage.files import WAIT, owned

    if not arguments.bundle:
        raise Refusal("no bundle given: sar-bank carry BANK_FILE --bundle BUNDLE")
    check_place(arguments.file)
    bundle = open_bundle(arguments.bundle)
    embed = Workspace(bundle, bundle.bank, arguments.file).classifier.embed_phrases
    before = read(arguments.file, detached=True)
    carried = edits.ahead(before, lambda bank: edits.carry(bank, bundle.bank, embed, by="sar-bank carry"))
    with owned(arguments.file, WAIT) as file:
        bank = read(file, detached=True, name=arguments.file)
        after, notes = carried(bank)
        changed = after not in (before, bank)
        for note in notes:
            click.echo(one_line(f"Warning: {note}"), err=True)
        if changed:
            save(arguments, Workspace(bundle, bundle.bank, file), after)
    text = f"carried; {len(after.names):,} classes" if changed else "belongs to this bundle already"
    content = {"bank": str(arguments.file), "changed": changed, "notes": notes, "step": after.log.last}
    emit(arguments.form, lambda: content, [text])


def _check_new(arguments: BankArguments, file: Path) -> None:
    """Raise Refusal if there is a bank file already."""
    if file.exists():
        raise Refusal(f"{arguments.file}: exists; add classes with sar-bank add, or choose another name")


def _lines(fitting: BankFitting, seconds: float) -> list[str]:
    pooled = f" (and {fitting.trained:,} of the bundle's training)" if fitting.trained else ""
    return [
        f"class model of {fitting.classes:,} classes{pooled}, {fitting.photos:,} photos, {seconds:.1f} s",
        *fitting.lines(),
    ]
