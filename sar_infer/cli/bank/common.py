"""What all of ``sar-bank`` shares: arguments, opening bundle and bank, one way to write a change."""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click
from click.core import ParameterSource

from sar_infer.cli.bank.printing import emit
from sar_infer.cli.options import Decorated, Refusal, one_blas_thread, option
from sar_infer.errors import InputError, SarInferError, WriteError

if TYPE_CHECKING:
    from sar_infer.artefact.bundle import Bundle
    from sar_infer.bank import ClassBank
    from sar_infer.classifier import Classifier

P = ParamSpec("P")

SUFFIX = ".safetensors"
INTERRUPTED = 130
ENVIRONMENT = "SAR_BANK"
"""Of options that mean something else elsewhere: ``SAR_BANK_ADD_CLASSES`` is the twin of ``sar-bank add --classes``."""
_SERVED = ("bank.safetensors", "lock")
"""What `sar-serve --state` keeps in a folder: its bank, and the lock beside it, which stays when the server ends."""
own_option = functools.partial(click.option, show_envvar=True)
"""An option whose twin has the name of the command in it; ``options.option`` is for those that all commands share."""


@dataclass(frozen=True)
class Place:
    """Which bank, of which bundle, and how to print what is found; the arguments that every command has."""

    file: Path
    bundle: str | None
    form: str


@dataclass(frozen=True)
class Opened:
    """A checked bundle and a bank of its encoder."""

    bundle: Bundle
    bank: ClassBank

    @functools.cached_property
    def classifier(self) -> Classifier:
        """What embeds names and photos; sessions open when they are first needed."""
        from sar_infer.classifier import Classifier

        return Classifier(self.bundle, bank=self.bank)


def on_bank(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command BANK_FILE, --bundle and --format as a ``Place``, and turn errors into one line on stderr.

    Exit code 2 for what cannot be used, 1 for what could not be written, 130 for an interrupt.
    """

    @click.argument("bank_file", type=click.Path(path_type=Path))
    @functools.wraps(command)
    def run(bank_file: Path, bundle: str | None, form: str, **values: Any) -> None:
        one_blas_thread()
        try:
            command(Place(bank_file, bundle, form), **values)
        except WriteError as error:
            raise click.ClickException(str(error)) from None
        except SarInferError as error:
            raise Refusal(str(error)) from None
        except BrokenPipeError:  # who read the output has seen enough; click ends quietly
            raise
        except OSError as error:
            raise Refusal(f"{error.filename or bank_file}: {error.strerror or error}") from None
        except KeyboardInterrupt:
            click.echo("Error: interrupted; nothing is half-written", err=True)
            sys.exit(INTERRUPTED)

    return run


def shared_options(command: Decorated) -> Decorated:
    """The options that every command has; they stand last in its help."""
    bundle = option(
        "--bundle", type=click.Path(), help="Bundle whose encoder it belongs to.  [default: the one that ships]"
    )
    form = option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
    return bundle(form(command))


def opened(place: Place, *, may_be_missing: bool = False, whole: bool = False) -> Opened:
    """Open the bundle, and the bank if it belongs to it, to look at them.

    Args:
        place: Where they are.
        may_be_missing: In place of a bank file that is not there stands the bundle's bank; stderr says so.
        whole: Check every byte of the bank.

    Raises:
        BundleError: the bundle is damaged.
        BankError: the bank is missing, damaged, or of another encoder.
    """
    missing = may_be_missing and not place.file.exists()
    found = _opened(place, missing=missing, whole=whole)
    if missing:
        _say_missing(place, found)
    return found


def _opened(place: Place, *, missing: bool, whole: bool) -> Opened:
    from sar_infer.artefact.bundle import open_bundle
    from sar_infer.bank import ClassBank

    bundle = open_bundle(Path(place.bundle) if place.bundle else None)
    if missing:
        return Opened(bundle, bundle.bank)
    load = ClassBank.verify if whole else ClassBank.load
    return Opened(bundle, load(place.file, bundle.manifest.encoder_digest))


def _say_missing(place: Place, found: Opened) -> None:
    """Whose classes stand in place of a file that was missing; one that is there now was made by this command."""
    count, bundle = f"{len(found.bank.names):,}", found.bundle.path.name
    if place.file.exists():
        text = f"{place.file} did not exist: made as a copy of {bundle}'s {count} classes"
    else:
        text = f"{place.file} does not exist: these are the {count} classes of {bundle}"
    click.echo(text, err=True)


@contextmanager
def changing(place: Place, *, may_be_missing: bool = True) -> Iterator[Opened]:
    """Own the bank file, so that no other process changes it meanwhile, and open it.

    A missing one starts as a copy of the bundle's bank; at the end stderr says so, and whether it was made.

    Raises:
        InputError: it is the bank inside a bundle, the state of a server, or no name for a bank file.
        WriteError: another process is changing it.
    """
    from sar_infer.storage.files import owned

    file = Path(os.path.realpath(place.file))
    if not file.parent.is_dir():
        raise InputError(f"{place.file}: no such folder; make it first")
    if _in_bundle(file):
        raise InputError(f"{place.file}: is part of a bundle, which never changes; name a file outside of it")
    if file.name == _SERVED[0] and (file.parent / _SERVED[1]).exists():
        raise InputError(
            f"{place.file}: is the state of a server, which changes it by its API; to go on from it, change a copy: "
            f"cp {shlex.quote(str(place.file))} mine.safetensors"
        )
    if not file.exists() and file.suffix != SUFFIX:
        raise InputError(f"{place.file}: no such bank file; the name of a new one ends in {SUFFIX}")
    with owned(file):
        missing = may_be_missing and not file.exists()
        found = _opened(place, missing=missing, whole=True)
        try:
            yield found
        finally:
            if missing:
                _say_missing(place, found)


def _in_bundle(file: Path) -> bool:
    """Whether a manifest beside it lists it."""
    from sar_infer.artefact.manifest import MANIFEST

    try:
        manifest = json.loads((file.parent / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    return isinstance(listed, dict) and file.name in listed


def write(place: Place, before: Opened, after: ClassBank, **more: Any) -> None:
    """Save a changed bank and say what changed and how it is undone.

    Args:
        place: Where.
        before: What was opened.
        after: The result of an edit; the bank that was opened where the edit changed nothing.
        more: Further content of the JSON form.

    Raises:
        BankError: a bank file cannot hold it.
        WriteError: it could not be written.
    """
    changed = after is not before.bank
    if changed:
        try:
            after.save(place.file)
        except OSError as error:
            raise WriteError(f"{place.file}: not written ({error.strerror or error}); nothing was changed") from None
    step, undo_to = after.history[-1] if changed else None, len(before.bank.history)
    undo = undo_to if step and step.undo else None
    content = {
        "bank": str(place.file),
        "changed": changed,
        "summary": step.summary if step else "nothing to change",
        "classes": len(after.names),
        "step": len(after.history),
        "undo_to": undo,
    }
    how = "" if undo is None else f"; undo: {_undo_command(place, undo)}"
    emit(place.form, lambda: content | more, [f"{content['summary']}; {len(after.names):,} classes{how}"])


def _undo_command(place: Place, step: int) -> str:
    """What goes back to a step; a bundle from the environment, or none, is found there by the next command too."""
    words = ["sar-bank", "rollback", str(place.file), "--to", str(step)]
    source = click.get_current_context().get_parameter_source("bundle")
    if place.bundle and source is ParameterSource.COMMANDLINE:
        words += ["--bundle", place.bundle]
    return shlex.join(words)


def warn_of_background(bank: ClassBank) -> None:
    """Say where a bank has no class left to answer with."""
    if bank.background is not None and bank.background.all():
        click.echo("Warning: all classes are background now, so that nothing can be answered", err=True)
