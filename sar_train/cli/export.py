"""``sar-export``: write a bundle from a run, or check one that was written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_train.cli import handover
from sar_train.cli.common import guarded, option
from sar_train.cli.smaller import Smaller, add, finish, smaller_options

if TYPE_CHECKING:
    from sar_train.export.source import Source

MOST_PHOTOS = 200

EPILOG = """\b
Examples:
  sar-export runs/demo --out exports/demo
  sar-export runs/demo --classes products.txt --photos photos/ --out exports/products
  sar-export runs/cocoop --approximate mean-image --out exports/cocoop
  sar-export --handcrafted "a photo of a {}." --backbone ViT-B-16-quickgelu --pretrained openai \\
             --classes names.txt --out exports/untuned
  sar-export exports/demo --precision int8 --photos photos/ --out exports/fast
  sar-export exports/demo --triton triton/
  sar-export --verify exports/demo --photos photos/
"""


@click.command(context_settings={"auto_envvar_prefix": "SAR"}, epilog=EPILOG)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@option("--out", type=click.Path(path_type=Path), help="The bundle's folder.")
@option(
    "--classes",
    type=click.Path(path_type=Path),
    help="Names of the bank, one a line, or 'name = phrase | phrase'.  [default: those of the run]",
)
@option(
    "--handcrafted",
    metavar="TEMPLATE",
    help="In place of RUN: an untuned backbone with this template, such as 'a photo of a {}.'",
)
@option("--backbone", help="With --handcrafted (default sar-mini), or for a checkpoint that does not name its own.")
@option("--pretrained", help="Tag or file of the backbone's weights.  [default: those of the run]")
@option(
    "--photos",
    type=click.Path(path_type=Path),
    help=f"Compare with torch on (at most {MOST_PHOTOS}) photos of this folder.  [default: generated pictures]",
)
@option(
    "--approximate",
    type=click.Choice(["mean-image"]),
    help="For a method whose prompt depends on the photo (cocoop): export the prompt for the mean training photo.",
)
@option(
    "--with-reference",
    is_flag=True,
    help="Add the name encoder of the hand-crafted prompt, which `sar-bank lint` compares new names with.",
)
@option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="RUN is a bundle: write a Triton model repository that answers for its bank, in a new folder.",
)
@smaller_options
@option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Measure a bundle again with what is installed now, without torch: what moved, and how far. With --photos, a "
    "folder for each class, accuracy too. Exit code 1 if something moved beyond its bound.",
)
@option("--format", "form", envvar="SAR_FORMAT", type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("--quiet", "-q", is_flag=True, help="No progress.")
@click.version_option(package_name="sar-clip")
@guarded
def main(
    run: Path | None, out: Path | None, verify: Path | None, form: str, *, overwrite: bool, quiet: bool, **given: Any
) -> None:
    """Write a bundle, the folder that sar-classify reads, from RUN, a folder that sar-train has written.

    The bundle is compared with torch and opened before it gets its name; a bundle that fails a check is not written.
    """
    as_json = form == "json"
    others = {"out": out, "overwrite": overwrite, **given}
    if verify is not None:
        handover.verify(verify, {"run": run, **others}, as_json=as_json, quiet=quiet)
    if given.pop("triton") is not None:
        handover.triton(run, others, as_json=as_json)
        return
    smaller = Smaller.taken(given)
    is_bundle = smaller.check(run, given)
    with_reference = given.pop("with_reference")
    out = _target(run, out, given["handcrafted"], overwrite=overwrite, with_reference=with_reference)

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    samples = smaller.photos(given["photos"])
    if run is not None and is_bundle and samples:
        made = smaller.write(run, out, samples, overwrite=overwrite, tell=tell)
        finish(out, made.manifest, made.outcome, as_json=as_json)
        return
    source = _source(run, tell, **{key: value for key, value in given.items() if key != "photos"})
    from sar_train.export.bundle import export_bundle
    from sar_train.export.report import plain, report

    manifest = export_bundle(
        source,
        out,
        command=shlex.join(["sar-export", *sys.argv[1:]]),
        photos=_photos(given["photos"]),
        overwrite=overwrite,
        with_reference=with_reference,
        tell=tell,
    )
    if not as_json:
        click.echo(report(out, manifest, len(source.phrases)))  # which stands whatever becomes of the rest
    if samples:
        add(smaller, out, manifest, samples, as_json=as_json, tell=tell)
    elif as_json:
        click.echo(plain(out, manifest))


def _target(run: Path | None, out: Path | None, template: str | None, *, overwrite: bool, with_reference: bool) -> Path:
    """Refuse what cannot succeed before anything heavy is loaded."""
    from sar_infer.artefact.staging import check_target
    from sar_train.errors import ConfigError

    if (run is None) == (template is None):
        raise ConfigError("expected a RUN folder, or --handcrafted TEMPLATE in its place")
    if template is not None and with_reference:
        raise ConfigError("--handcrafted: its name encoder is the hand-crafted one; leave --with-reference out")
    if out is None:
        raise ConfigError("expected --out DIR, the folder of the new bundle")
    check_target(out, overwrite=overwrite)
    return out


def _source(
    run: Path | None,
    tell: Callable[[str], None],
    classes: Path | None,
    handcrafted: str | None,
    **given: str | None,
) -> Source:
    from sar_train.errors import ConfigError

    phrases = _phrases(classes)
    if handcrafted is not None and not phrases:
        raise ConfigError("--handcrafted needs class names for the bank: --classes FILE")
    from sar_train.export.source import from_run, from_template

    if handcrafted is not None:
        if given["approximate"]:
            raise ConfigError("--handcrafted is exported as it is; leave --approximate out")
        return from_template(handcrafted, phrases, given["backbone"] or "sar-mini", given["pretrained"])
    assert run is not None  # noqa: S101 - _target has seen to it
    return from_run(run, phrases, tell=tell, **given)


def _phrases(path: Path | None) -> Mapping[str, Sequence[str]]:
    from sar_infer.text.names import read_class_file

    if path is None:
        return {}
    file = read_class_file(path)
    for warning in file.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return file.classes


def _photos(folder: Path | None) -> list[Path]:
    """At most 200 photos of a folder, at even steps."""
    from sar_infer.images.inputs import expand

    found = [] if folder is None else [Path(path) for path in expand([str(folder)])]
    return found[:: -(-len(found) // MOST_PHOTOS) or 1]
