"""Shared by all commands of ``sar-bank``: arguments, opening bundle and bank, writing a change, printing."""

from __future__ import annotations

import functools
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from sar_infer.cli.options import Refusal, emit, one_blas_thread, option, read_classes, reported, together
from sar_infer.errors import BaseMissingError, WriteError, one_line

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation import Finding
    from sar_infer.text.names import Phrases


SUFFIX = ".safetensors"
ENVIRONMENT = "SAR_BANK"
"""Prefix of the environment twins of a single command's options: ``SAR_BANK_ADD_CLASSES`` for ``add --classes``."""
own_option = functools.partial(click.option, show_envvar=True)
"""An option whose environment twin contains the name of its command; ``options.option`` is for shared ones."""
Chunk = TypeVar("Chunk", bound=Sized)


@dataclass(frozen=True)
class BankArguments:
    """The arguments that every command has: the bank file, its bundle, and the format of the output."""

    file: Path
    bundle: str | None
    form: str


@dataclass(frozen=True)
class Workspace:
    """A checked bundle and a bank of its encoder, with the file that it is in, which a change replaces."""

    bundle: Bundle
    bank: ClassBank
    file: Path

    @functools.cached_property
    def classifier(self) -> Classifier:
        """Return the classifier that embeds names and images; its sessions open when they are first needed."""
        from sar_infer.classifier import Classifier

        return Classifier(self.bundle, bank=self.bank)


def on_bank(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command BANK_FILE, --bundle and --format as ``BankArguments``, and turn errors into one line on stderr.

    Exit code 2 for what cannot be used, 1 for what could not be written, 130 for an interrupt.
    """

    @click.argument("bank_file", type=click.Path())
    @functools.wraps(command)
    def run(bank_file: str, bundle: str | None, form: str, **values: Any) -> None:
        one_blas_thread()
        if not bank_file:
            raise Refusal(f"BANK_FILE is empty; expected a bank file, such as shop{SUFFIX}")
        with reported(bank_file):
            command(BankArguments(Path(bank_file), bundle, form), **values)

    return run


shared_options = together(
    option(
        "--bundle", type=click.Path(), help="Bundle whose encoder the bank belongs to.  [default: the one that ships]"
    ),
    option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Output format: for people, or for programs.",
    ),
)
"""The options that every command has; they come last in its help."""


def opened(arguments: BankArguments, *, may_be_missing: bool = False, whole: bool = False) -> Workspace:
    """Open the bundle, and the bank if it belongs to the bundle, for reading.

    Args:
        arguments: Where they are.
        may_be_missing: Use the bundle's bank if the bank file does not exist, and say so on stderr.
        whole: Check every byte of the bank.

    Raises:
        BundleError: the bundle is damaged.
        BankError: the bank is missing, damaged, or of another encoder.
    """
    missing = may_be_missing and not arguments.file.exists()
    workspace = _opened(arguments, arguments.file, missing=missing, whole=whole)
    if missing:
        _say_missing(arguments, workspace)
    return workspace


def _opened(arguments: BankArguments, file: Path, *, missing: bool, whole: bool) -> Workspace:
    from sar_infer.bundle.bank_file import read
    from sar_infer.bundle.bundle import open_bundle

    bundle = open_bundle(arguments.bundle or None)
    return Workspace(bundle, bundle.bank if missing else read(file, bundle, whole=whole), file)


def replayed(arguments: BankArguments) -> ClassBank:
    """Return the bank of a file for a command that shows names alone: no bundle has to be named.

    The file says where the bundle is that it belongs to; if none is there, the one that ships may be the same.

    Raises:
        BankError: The bank is missing, damaged, or its bundle is not to be found; or it is of another encoder than a
            bundle that is named.
    """
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bank_file import read
    from sar_infer.bundle.bundle import open_bundle

    if arguments.bundle:
        return read(arguments.file, open_bundle(arguments.bundle))
    try:
        return ClassBank.load(arguments.file)
    except BaseMissingError:
        return ClassBank.load(arguments.file, base=open_bundle(None).bank)


def _say_missing(arguments: BankArguments, workspace: Workspace) -> None:
    """Say on stderr that the bundle's classes are used for a missing bank file, or that it was made as a copy."""
    from sar_infer.bundle.bundle import bundle_name

    count, bundle = f"{len(workspace.bank.names):,}", bundle_name(workspace.bundle.location)
    if arguments.file.exists():
        text = f"{arguments.file} did not exist: made as a copy of the {count} classes of {bundle}"
    else:
        text = f"{arguments.file} does not exist: these are the {count} classes of {bundle}"
    click.echo(one_line(text), err=True)


@contextmanager
def changing(arguments: BankArguments, *, may_be_missing: bool = True, opening: bool = True) -> Iterator[Workspace]:
    """Lock the bank file, so that no other process changes it meanwhile, and open it.

    A missing file starts as a copy of the bundle's bank; at the end stderr says so.

    Args:
        arguments: Where they are.
        may_be_missing: Begin with the bundle's bank if the bank file does not exist.
        opening: Open the bank; else the bundle's stands for it, for a file that belongs to another encoder.

    Raises:
        InputError: the file cannot be changed where it is.
        WriteError: another process is changing it.
    """
    from sar_infer.bundle.bank_file import WAIT, check_changeable
    from sar_infer.storage.files import owned

    check_changeable(arguments.file)
    with owned(arguments.file, WAIT) as file:
        missing = may_be_missing and not file.exists()
        workspace = _opened(arguments, file, missing=missing or not opening, whole=False)
        try:
            yield workspace
        finally:
            if missing:
                _say_missing(arguments, workspace)


def write(arguments: BankArguments, before: Workspace, after: ClassBank, **more: Any) -> None:
    """Save a changed bank and print what changed and how to undo it.

    Args:
        arguments: Where to save it.
        before: The bank as it was opened.
        after: The result of an edit; the opened bank itself if the edit changed nothing.
        more: Further content of the JSON output.

    Raises:
        BankError: a bank file cannot hold it.
        WriteError: it could not be written.
    """
    changed = after is not before.bank
    if changed:
        if not after.can_answer:
            click.echo("Warning: every class is background now, so no image gets an answer", err=True)
        save(arguments, before, after)
        if before.bank.calibration_holds and not after.calibration_holds:
            text = "scores are not calibrated any more, and thresholds for unknown are of before the change; calibrate "
            click.echo(f"{text}again: {again(arguments, 'calibrate', '--photos', 'PHOTOS')}", err=True)
        if (
            after.learned is not None
            and after.learned.stale
            and not (before.bank.learned and before.bank.learned.stale)
        ):
            text = "what photos without labels taught is of other classes now, and still ranks; learn again: "
            click.echo(f"{text}{again(arguments, 'learn', '--photos', 'PHOTOS')}", err=True)
    step, undo_to = after.history[-1] if changed else None, len(before.bank.history)
    undo = undo_to if step and step.can_undo else None
    content = {
        "bank": str(arguments.file),
        "changed": changed,
        "summary": step.summary if step else "nothing to change",
        "classes": len(after.names),
        "step": len(after.history),
        "undo_to": undo,
    }
    how = "" if undo is None else f"; undo: {again(arguments, 'rollback', '--to', str(undo))}"
    count = "1 class" if len(after.names) == 1 else f"{len(after.names):,} classes"
    emit(arguments.form, lambda: content | more, [f"{content['summary']}; {count}{how}"])


def save(arguments: BankArguments, before: Workspace, bank: ClassBank) -> None:
    """Save a bank; the file is the old one or the new one.

    Args:
        arguments: The file, for messages.
        before: The file that is locked.
        bank: The bank.

    Raises:
        BankError: a bank file cannot hold it.
        WriteError: it could not be written.
    """
    try:
        bank.save(before.file)
    except OSError as error:
        raise WriteError(f"{arguments.file}: not written ({error.strerror or error}); nothing was changed") from None


def again(arguments: BankArguments, command: str, *more: str) -> str:
    """Return another command on the same bank file; it names the bundle only if the command line did."""
    words = ["sar-bank", command, str(arguments.file), *more]
    source = click.get_current_context().get_parameter_source("bundle")
    if arguments.bundle and source is ParameterSource.COMMANDLINE:
        words += ["--bundle", arguments.bundle]
    return shlex.join(words)


def read_phrases(names: Iterable[str], file: Path | None, check: Callable[[str], object] = len) -> Phrases:
    """Return phrases by class name, from the command line (``name`` or ``name = phrase | phrase``) and a class file.

    Raises:
        ClassNameError: a line is wrong.
        ClassFileError: the file cannot be read.
    """
    from sar_infer.text.names import name_key, parse_line

    classes = {}
    for line in names:
        name, phrases = parse_line(line)
        for phrase in phrases:
            check(phrase)
        classes[name] = phrases
    if file is not None:
        from_file = read_classes(file, check)
        keys = {name_key(name) for name in classes}
        classes |= {name: phrases for name, phrases in from_file.items() if name_key(name) not in keys}
    return classes


def shown(findings: Sequence[Finding], most: int | None = None) -> Iterator[str]:
    """Yield a line for each finding; with ``most``, for the first of them, and a last line that counts the rest."""
    for finding in findings[:most]:
        name = f"{finding.name!r} " if finding.name else ""
        hint = "" if finding.suggestion is None else f" -> {finding.suggestion!r}"
        yield f"Warning: {name}{finding.message} [{finding.kind}]{hint}"
    if rest := len(findings) - len(findings[:most]):
        yield f"and {rest:,} more"


def counted(chunks: Iterable[Chunk], total: int, label: str, hidden_up_to: int) -> Iterator[Chunk]:
    """Yield the chunks; on a terminal, show a bar that counts their items if there are more than ``hidden_up_to``."""
    started = time.perf_counter()
    hidden = total <= hidden_up_to or not sys.stderr.isatty()
    with click.progressbar(
        length=total, label=label, file=sys.stderr, hidden=hidden, show_pos=True, item_show_func=_rate
    ) as bar:
        done = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(len(chunk), done / max(time.perf_counter() - started, 1e-9))


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}/s"
