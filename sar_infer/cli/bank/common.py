"""Shared by all commands of ``sar-bank``: arguments, opening bundle and bank, writing a change, printing."""

from __future__ import annotations

import functools
import itertools
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from sar_infer.cli.command import Command
from sar_infer.cli.options import (
    Decorated,
    Refusal,
    emit,
    format_option,
    one_blas_thread,
    option,
    progress_bar,
    read_classes,
    reported,
    together,
)
from sar_infer.errors import WriteError, one_line

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bank_file import BankFile
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation.findings import Finding
    from sar_infer.text.names import Phrases


SUFFIX = ".safetensors"
_MOST_SHOWN = 20
ENVIRONMENT = "SAR_BANK"
"""Prefix of the environment variables of a single command's options: ``SAR_BANK_ADD_CLASSES`` for ``add --classes``."""
own_option = click.option
"""An option whose environment variable contains the name of its command; ``options.option`` is for shared ones."""
Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class BankArguments:
    """The arguments that every command has: the bank file, its bundle, and the format of the output."""

    file: Path
    bundle: str | None
    form: str

    @property
    def labels_page(self) -> Path:
        """Return the page of photos that may lie in the wrong folder."""
        return self.file.with_name(f"{self.file.stem}-labels.html")


@dataclass(frozen=True)
class Workspace:
    """A checked bundle and a bank of its encoder, with its file: of a change, the one that is locked."""

    bundle: Bundle
    bank: ClassBank
    file: Path
    source: BankFile | None = None

    @functools.cached_property
    def classifier(self) -> Classifier:
        """Return the classifier that embeds names and images; its sessions open when they are first needed."""
        from sar_infer.classifier import Classifier

        return Classifier(self.bundle, bank=self.bank)


_SHARED = together(
    option("--bundle", type=click.Path(), help="Bundle of the bank's encoder.  [default: the shipped one]"),
    format_option,
)
"""The options that every command has; they come last in its help."""


def on_bank(groups: Mapping[str, str], name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Return what makes a command of a function, with BANK_FILE, --bundle and --format as ``BankArguments``.

    Errors become one line on stderr: exit code 2 for what cannot be used, 1 for what could not be written, 130 for an
    interrupt.

    Args:
        groups: Names of the command's own options, by their heading in ``--help``.
        name: Name of the command; None is that of the function.
    """

    def made(command: Callable[..., None]) -> click.Command:
        @click.argument("bank_file", type=click.Path())
        @functools.wraps(command)
        def run(bank_file: str, bundle: str | None, form: str, **values: Any) -> None:
            one_blas_thread()
            if not bank_file:
                raise Refusal(f"BANK_FILE is empty; expected a bank file, such as shop{SUFFIX}")
            with reported(bank_file):
                command(BankArguments(Path(bank_file), bundle, form), **values)

        result = click.command(name, cls=Command, groups={**groups, "Shared options": "bundle form"})(run)
        result.params += click.command()(_SHARED(lambda: None)).params
        return result

    return made


def photos_option(metavar: str, text: str, *, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Return the option --photos, which is repeatable."""
    return own_option("--photos", multiple=True, required=required, metavar=metavar, help=text)


classes_option = own_option(
    "--classes", type=click.Path(path_type=Path), help="Text file of class names, one per line; or a,b,c."
)
cache_option = own_option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep embeddings of photos here, and use those that are there.",
)
exclude_option = own_option(
    "--exclude",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="Leave out the photos of this list, such as the one that the page of doubtful photos saves.",
)


def opened(arguments: BankArguments, *, may_be_missing: bool = False, changing: bool = False) -> Workspace:
    """Open the bundle, and the bank if it belongs to the bundle.

    Args:
        arguments: Where they are.
        may_be_missing: Use the bundle's bank if the bank file does not exist, and report it on stderr, or in ``save``.
        changing: Open it for a change, without its lock, which ``locked`` takes once all images have been read.

    Raises:
        InputError: The file cannot be changed where it is.
        BundleError: The bundle is damaged.
        BankError: The bank is missing, damaged, or of another encoder.
    """
    from sar_infer.bundle.bank_file import BankFile, check_place
    from sar_infer.bundle.bundle import bundle_name, open_bundle

    if changing:
        check_place(arguments.file)
    bundle = open_bundle(arguments.bundle or None)
    source = BankFile(arguments.file, bundle, missing=may_be_missing)
    if source.bank is bundle.bank and not changing:
        count, name = f"{len(bundle.bank.names):,}", bundle_name(bundle.location)
        click.echo(one_line(f"{arguments.file} does not exist: these are the {count} classes of {name}"), err=True)
    return Workspace(bundle, source.bank, arguments.file, source)


@contextmanager
def locked(before: Workspace) -> Iterator[Workspace]:
    """Lock the bank file, so that no other process changes it meanwhile, and look at it again.

    Raises:
        WriteError: Another process is changing it.
    """
    with cast("BankFile", before.source).changing() as (file, bank):
        yield Workspace(before.bundle, bank, file)


def write(arguments: BankArguments, before: Workspace, after: ClassBank, why: str = "", **more: Any) -> None:
    """Save a changed bank, and print what changed, how to undo it, and what to run again.

    Args:
        arguments: Where to save it.
        before: The bank as it was opened.
        after: The result of an edit; the opened bank itself if the edit changed nothing.
        why: Follows "nothing to change".
        more: Further content of the JSON output.

    Raises:
        WriteError: It could not be written.
    """
    bank, changed = before.bank, after is not before.bank
    if changed:
        save(arguments, before, after)
        lines = ["Warning: every class is background, so none is predicted"] * (not after.can_answer)
        if bank.calibration_holds and not after.calibration_holds:
            calibrate = again(arguments, "calibrate", "--photos", "PHOTOS")
            lines.append(f"this change made the calibration stale; calibrate again: {calibrate}")
        if bank.fitted is not None and after.fitted is None:
            from sar_infer.classify.fitting import enough

            following = f"; next: {again(arguments, 'fit')}" if enough(after.photos) else ""
            lines.append(f"without a fitted class model{following}")
        if after.learned is not None and after.learned.stale and not (bank.learned and bank.learned.stale):
            learn = again(arguments, "learn", "--photos", "PHOTOS")
            lines.append(f"this change made the adaptation to unlabelled photos stale; adapt again: {learn}")
        for line in lines:
            click.echo(line, err=True)
    step = after.history[-1] if changed else None
    undo = bank.log.last if step and step.can_undo and step.action != "forget" else None
    content = {
        "bank": str(arguments.file),
        "changed": changed,
        "summary": step.summary if step else f"nothing to change{why}",
        "classes": len(after.names),
        "step": after.log.last,
        "undo_to": undo,
    }
    how = "" if undo is None else f"; undo: {again(arguments, 'rollback', '--to', str(undo))}"
    how = "; this cannot be undone" if step and step.action == "forget" else how
    count = "1 class" if len(after.names) == 1 else f"{len(after.names):,} classes"
    emit(arguments.form, lambda: content | more, [f"{content['summary']}; {count}{how}"])


def save(arguments: BankArguments, before: Workspace, bank: ClassBank) -> None:
    """Save a bank to the file that is locked; the file is the old one or the new one.

    Stderr reports a new file that starts with the classes of the bundle.

    Raises:
        WriteError: It could not be written.
    """
    from sar_infer.bank.file import write as write_bank
    from sar_infer.bundle.bundle import bundle_name

    bundle, starts = before.bundle, before.bank is before.bundle.bank and not before.file.exists()
    try:
        write_bank(before.file, bank)
    except OSError as error:
        raise WriteError(f"{arguments.file}: not written ({error.strerror or error}); nothing was changed") from None
    if starts:
        of = f"new bank on {bundle_name(bundle.location)}, with its {len(bundle.bank.names):,} classes"
        click.echo(one_line(f"{of}; for only your own classes: sar-bank create"), err=True)


def again(arguments: BankArguments, command: str, *more: str) -> str:
    """Return another command on the same bank file."""
    return shlex.join(["sar-bank", command, str(arguments.file), *more, *bundle_words(arguments)])


def bundle_words(arguments: BankArguments) -> list[str]:
    """Return ``--bundle BUNDLE`` if the command line named it."""
    source = click.get_current_context().get_parameter_source("bundle")
    return ["--bundle", arguments.bundle] if arguments.bundle and source is ParameterSource.COMMANDLINE else []


def read_phrases(names: Iterable[str], file: Path | None, check: Callable[[str], object] = len) -> Phrases:
    """Return phrases by class name, from the command line (``name`` or ``name = phrase | phrase``) and a class file.

    Raises:
        ClassNameError: a line is wrong.
        ClassFileError: the file cannot be read.
    """
    from sar_infer.text.names import name_key, parse_line

    classes = dict(map(parse_line, names))
    for phrase in itertools.chain(*classes.values()):
        check(phrase)
    from_file = {} if file is None else read_classes(file, check)
    keys = {name_key(name) for name in classes}
    return classes | {name: phrases for name, phrases in from_file.items() if name_key(name) not in keys}


def show_findings(findings: Sequence[Finding]) -> None:
    """Print a line to stderr for each of the first findings, and one that counts the rest."""
    for finding in findings[:_MOST_SHOWN]:
        name = f"{finding.name!r} " if finding.name else ""
        hint = "" if finding.suggestion is None else f" -> {finding.suggestion!r}"
        click.echo(one_line(f"Warning: {name}{finding.message} [{finding.kind}]{hint}"), err=True)
    if rest := len(findings[_MOST_SHOWN:]):
        click.echo(f"and {rest:,} more", err=True)


def counted(
    chunks: Iterable[Chunk], total: int, label: str, size: Callable[[Chunk], int], hidden_up_to: int = 64
) -> Iterator[Chunk]:
    """Yield the chunks; on a terminal, show a bar that counts their items if there are more than ``hidden_up_to``."""
    started, done = time.perf_counter(), 0
    with progress_bar(total, label, hidden_up_to, item_show_func=lambda rate: rate and f"{rate:,.0f}/s") as bar:
        for chunk in chunks:
            yield chunk
            done += size(chunk)
            bar.update(size(chunk), done / max(time.perf_counter() - started, 1e-9))
