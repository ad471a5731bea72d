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
from sar_infer.cli.command import Command, Group
from sar_infer.cli.comparing import compare
from sar_infer.cli.options import (
    BUNDLE_ARGUMENT,
    CONTEXT,
    Refusal,
    emit,
    format_option,
    one_blas_thread,
    option,
    printing,
    reported,
    set_encoding,
)
from sar_infer.errors import install

if TYPE_CHECKING:
    from sar_infer.bundle.bundle import Bundle

FURTHER = "sar_infer.bundle_commands"
"""Group of the entry points that add commands."""
_OF_TRAINING = {
    "import": "Make a bundle of published ONNX towers.",
    "onnx": "Write one ONNX file from pixels to scores.",
    "shrink": "Write a bundle with smaller graphs.",
}
EPILOG = """\b
Examples:
  sar-bundle import hf://immich-app/ViT-B-32__openai --out bundles/b32
  sar-bundle show bundles/mine
  sar-bundle verify bundles/mine --photos photos/
  sar-bundle compare bundles/mine bundles/b32 --photos photos/
  sar-bundle freeze bundles/mine --bank mine.safetensors --out bundles/menu
  sar-bundle onnx bundles/mine --bank mine.safetensors --out shop.onnx
  sar-bundle shrink bundles/mine --precision int8 --photos photos/ --out small
"""


class _Commands(Group):
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

    def refuse() -> None:
        raise Refusal(f"sar-bundle {name} needs the training packages: {install('train')}")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, anything, refuse, help=_OF_TRAINING[name], add_help_option=False)


@click.group(cls=_Commands, context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_BUNDLE"}, epilog=EPILOG)
@click.version_option(__version__, prog_name="sar-bundle")
def main() -> None:
    """Show a bundle, check it, or make another from it. BUNDLE itself never changes.

    BUNDLE is a folder that sar-export has written, or hf://USER/NAME@REVISION on a Hugging Face hub. By default it is
    the one that ships with sar-clip.

    Exit code: 0 after success; 1 if a check failed, or if the output was not made or not written; 2 if the call is
    wrong, and nothing was done.
    """


@main.command(cls=Command, groups={"Options": "form"})
@BUNDLE_ARGUMENT
@format_option
def show(bundle: str | None, form: str) -> None:
    """Describe a bundle: its classes, inputs and accuracy.

    --format json prints its manifest and path.
    """
    one_blas_thread()
    with reported(bundle):
        print_bundle(bundle, form)


def print_bundle(location: str | Path | None, form: str) -> None:
    """Print a bundle's summary as lines of text, or its manifest as stored and its ``path`` as JSON.

    Args:
        location: A folder or a place on a hub; None is the bundle that ships.
        form: ``text`` or ``json``.

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
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    with printing():
        click.echo(text, nl=False)


@main.command(cls=Command, groups={"Options": "photos form"})
@BUNDLE_ARGUMENT
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="Also measure the accuracy on this folder: photos unused in training, one folder for each class.",
)
@format_option
def verify(bundle: str | None, photos: Path | None, form: str) -> None:
    """Check digests, self-test and parity of a bundle.

    They are computed with the packages that are installed now. With --photos, also print the accuracy next to the
    manifest's.

    Exit code 1 if a check failed.
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
    from sar_infer.cli.bank.photos import files_by_class
    from sar_infer.cli.evaluating import watched
    from sar_infer.errors import InputError

    classifier, metrics = Classifier(bundle, device="cpu"), bundle.manifest.quality.metrics
    labelled = files_by_class(bundle.bank.lookup, {}, [str(photos)])
    groups = {"trained": metrics.base_accuracy, "new": metrics.new_accuracy}
    result: list[dict[str, Any]] = []
    for group, then in groups.items():
        paths = {n: p for n, p in labelled.items() if (bundle.bank.lookup.get(n) is None) is (group == "new")}
        if len(paths) < 2:
            continue
        count = sum(map(len, paths.values()))
        evaluation = watched(classifier.evaluate, paths, count, classes=list(paths), only=True)
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


@main.command(cls=Command, groups={"Options": "bank out overwrite form"})
@BUNDLE_ARGUMENT
@option("--bank", required=True, type=click.Path(path_type=Path), help="Bank file with the classes of the new bundle.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@format_option
def freeze(bundle: str | None, bank: Path, out: Path, form: str, *, overwrite: bool) -> None:
    """Write a bundle with the classes of a bank file.

    All else is copied from BUNDLE.
    """
    one_blas_thread()
    with reported(out):
        from sar_infer.bank import ClassBank
        from sar_infer.bundle.bundle import open_bundle
        from sar_infer.bundle.freeze import freeze as write
        from sar_infer.bundle.writing import check_target
        from sar_infer.classify.fitting import pinned

        check_target(out, overwrite=overwrite)
        opened = open_bundle(bundle)
        loaded = ClassBank.load(bank, opened.manifest.encoder_digest, opened.bank)
        classes = pinned(loaded, opened.bank, opened.trained)
        command = shlex.join(["sar-bundle", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()
        manifest = write(opened, classes, out, overwrite=overwrite, command=command)
        content = {"bundle": str(out), "digest": manifest.digest, "classes": len(classes.names)}
        following = f"sar-classify PHOTO --bundle {shlex.quote(str(out))}"
        emit(form, lambda: content, [f"{out}: {len(classes.names):,} classes; next: {following}"])


main.add_command(compare)

if __name__ == "__main__":
    main()
