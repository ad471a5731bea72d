"""``sar-bundle``: what can be done with a bundle that exists.

Commands that need onnx live with the training half and are found by an entry point, so that this half never imports it.
"""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.cli.options import (
    BUNDLE_ARGUMENT,
    CONTEXT,
    emit,
    one_blas_thread,
    option,
    printing,
    refused_command,
    reported,
    set_encoding,
)

if TYPE_CHECKING:
    from sar_infer.bundle.bundle import Bundle

FURTHER = "sar_infer.bundle_commands"
"""Group of the entry points that add commands."""
_OF_TRAINING = {
    "onnx": "Write one ONNX file from pixels to scores, which any onnxruntime runs.",
    "shrink": "Write a bundle with smaller graphs.",
}
EPILOG = """\b
Examples:
  sar-bundle show bundles/mine
  sar-bundle verify bundles/mine --photos photos/
  sar-bundle freeze bundles/mine --bank mine.safetensors --out bundles/menu
  sar-bundle onnx bundles/mine --bank mine.safetensors --out shop.onnx
  sar-bundle shrink bundles/mine --precision int8 --photos photos/ --out small
"""


class _Commands(click.Group):
    """The commands of this file and those that entry points add, which are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        further = {point.name for point in entry_points(group=FURTHER)}
        return sorted({*super().list_commands(ctx), *further, *_OF_TRAINING})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; one of training that is not installed says what to install."""
        return super().get_command(ctx, cmd_name) or _further(cmd_name)


def _further(name: str) -> click.Command | None:
    for point in entry_points(group=FURTHER, name=name):
        try:
            command: click.Command = point.load()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != point.module.partition(".")[0]:
                raise
        else:
            return command
    if name not in _OF_TRAINING:
        return None
    reason = f"sar-bundle {name} comes with training: pip install 'sar-clip[train]'"
    return refused_command(name, reason, summary=_OF_TRAINING[name])


@click.group(
    cls=_Commands,
    context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_BUNDLE"},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="sar-bundle")
def main() -> None:
    """Show a bundle, check it, or make another from it; the bundle itself never changes.

    BUNDLE is a folder that sar-export has written, or hf://USER/NAME@REVISION on a Hugging Face hub, by default the
    one that ships with sar-clip.

    Exit code: 0 if all went well; 1 if a figure is beyond its bound, or something was not made or could not be
    written; 2 if nothing was done because something in the call is wrong.
    """


_form = option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@main.command()
@BUNDLE_ARGUMENT
@_form
def show(bundle: str | None, form: str) -> None:
    """Describe a bundle: what it contains, takes and reaches.

    As JSON, print its manifest and path.
    """
    one_blas_thread()
    with reported(bundle):
        print_bundle(bundle, form)


def print_bundle(location: str | Path | None, form: str) -> None:
    """Print a bundle's summary as lines of text, or its manifest as stored and its ``path``, as JSON or on one line.

    Args:
        location: A folder or a place on a hub; None is the bundle that ships.
        form: ``text``, ``json`` or ``jsonl``.

    Raises:
        BundleError: it is damaged.
    """
    from sar_infer.bundle.bundle import open_bundle
    from sar_infer.bundle.card import describe
    from sar_infer.bundle.manifest import MANIFEST

    bundle = open_bundle(location)
    set_encoding(form)
    if form == "text":
        text = describe(bundle)
    else:
        stored = json.loads((bundle.path / MANIFEST).read_text("utf-8"))
        content = {"path": str(bundle.path), **stored}
        text = json.dumps(content, ensure_ascii=False, indent=2 if form == "json" else None) + "\n"
    with printing():
        click.echo(text, nl=False)


@main.command()
@BUNDLE_ARGUMENT
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Folder of photos that training has not seen, one folder for each class, to measure accuracy too.",
)
@_form
def verify(bundle: str | None, photos: Path | None, form: str) -> None:
    """Check digests, self-test and parity of a bundle.

    They are computed with what is installed now. With --photos, also print the accuracy on them beside the manifest's.

    Exit code 1 if a figure is beyond its bound.
    """
    one_blas_thread()
    with reported(bundle):
        from sar_infer.bundle.bundle import open_bundle
        from sar_infer.encoders.parity import checks

        opened = open_bundle(bundle)
        results = checks(opened)
        accuracies = [] if photos is None else _accuracies(opened, photos)
        passed = all(check.passed for check in results)
        lines = [f"{'ok' if check.passed else 'FAILED':<8}{check}" for check in results]
        for entry in accuracies:
            then = "not measured" if entry["manifest"] is None else f"{entry['manifest']:.1f} %"
            lines.append(
                f"{'':<8}accuracy {entry['accuracy']:.1f} % of {entry['photos']:,} photos of {entry['classes']:,} "
                f"{entry['of']} classes; manifest: {then}"
            )
        content = {
            "bundle": opened.location,
            "passed": passed,
            "checks": [vars(check) | {"passed": check.passed} for check in results],
            "accuracies": accuracies,
        }
        emit(form, lambda: content, [*lines, f"{opened.location}: {'intact' if passed else 'a check failed'}"])
    sys.exit(int(not passed))


def _accuracies(bundle: Bundle, photos: Path) -> list[dict[str, Any]]:
    """Return the accuracy among the bank's classes and among new ones, as far as there are folders of two or more."""
    from sar_infer.classifier import Classifier
    from sar_infer.cli.evaluating import evaluated, labelled_photos
    from sar_infer.errors import InputError

    classifier, metrics = Classifier(bundle, device="cpu"), bundle.manifest.quality.metrics
    labelled = labelled_photos([str(photos)], bundle.bank.lookup.get)
    groups = {"trained": metrics.base_accuracy, "new": metrics.new_accuracy}
    result: list[dict[str, Any]] = []
    for group, then in groups.items():
        paths = {n: p for n, p in labelled.items() if (bundle.bank.lookup.get(n) is None) is (group == "new")}
        if len(paths) < 2:
            continue
        evaluation = evaluated(classifier, paths, list(paths), only=True)
        result.append(
            {
                "of": group,
                "classes": len(paths),
                "photos": evaluation.accuracy.of,
                "accuracy": 100 * evaluation.accuracy.share,
                "manifest": then,
            }
        )
    if not result:
        raise InputError(f"{photos}: expected folders of two classes of the bank, or of two new classes")
    return result


@main.command()
@BUNDLE_ARGUMENT
@option("--bank", required=True, type=click.Path(path_type=Path), help="Bank file with the classes of the new bundle.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), show_envvar=True, help="Folder of the new bundle."
)
@click.option("--overwrite", is_flag=True, show_envvar=True, help="Replace a bundle in --out.")
@_form
def freeze(bundle: str | None, bank: Path, out: Path, form: str, *, overwrite: bool) -> None:
    """Write a bundle with the classes of a bank file.

    Everything but the classes is taken from BUNDLE.
    """
    one_blas_thread()
    with reported(out):
        from sar_infer.bank import ClassBank
        from sar_infer.bundle.bundle import open_bundle
        from sar_infer.bundle.freeze import freeze as write
        from sar_infer.bundle.writing import check_target

        check_target(out, overwrite=overwrite)
        opened = open_bundle(bundle)
        classes = ClassBank.load(bank, opened.manifest.encoder_digest, opened.bank)
        command = shlex.join(["sar-bundle", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()
        manifest = write(opened, classes, out, overwrite=overwrite, command=command)
        content = {"bundle": str(out), "digest": manifest.digest, "classes": len(classes.names)}
        following = f"sar-classify PHOTO --bundle {shlex.quote(str(out))}"
        emit(form, lambda: content, [f"{out}: {len(classes.names):,} classes; next: {following}"])


if __name__ == "__main__":
    main()
