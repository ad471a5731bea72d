"""``sar-export``: write a bundle from a run, or check one that was written."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_train.cli.common import guarded, option

if TYPE_CHECKING:
    from sar_infer.artefact import Manifest
    from sar_train.export.source import Source

MOST_PHOTOS = 200

EPILOG = """\b
Examples:
  sar-export runs/demo --out exports/demo
  sar-export runs/demo --classes products.txt --photos photos/ --out exports/products
  sar-export runs/cocoop --approximate mean-image --out exports/cocoop
  sar-export --handcrafted "a photo of a {}." --backbone ViT-B-16-quickgelu --pretrained openai \\
             --classes names.txt --out exports/untuned
  sar-export --verify exports/demo
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
@option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Check a bundle again, without torch: its files, its probe, its bank.",
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
    if verify is not None:
        click.echo(_verified(verify, as_json=as_json))
        return
    out = _target(run, out, given["handcrafted"], overwrite=overwrite)

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    source = _source(run, tell, **{key: value for key, value in given.items() if key != "photos"})
    from sar_train.export.bundle import export_bundle
    from sar_train.export.report import report

    manifest = export_bundle(
        source,
        out,
        command=shlex.join(["sar-export", *sys.argv[1:]]),
        photos=_photos(given["photos"]),
        overwrite=overwrite,
        tell=tell,
    )
    click.echo(_as_json(out, manifest) if as_json else report(out, manifest, len(source.phrases)))


def _target(run: Path | None, out: Path | None, template: str | None, *, overwrite: bool) -> Path:
    """Refuse what cannot succeed before anything heavy is loaded."""
    from sar_infer.staging import check_target
    from sar_train.errors import ConfigError

    if (run is None) == (template is None):
        raise ConfigError("expected a RUN folder, or --handcrafted TEMPLATE in its place")
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
    from sar_infer.names import read_class_file

    if path is None:
        return {}
    file = read_class_file(path)
    for warning in file.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return file.classes


def _photos(folder: Path | None) -> list[Path]:
    """At most 200 photos of a folder, at even steps."""
    from sar_infer.inputs import expand

    found = [] if folder is None else [Path(path) for path in expand([str(folder)])]
    return found[:: -(-len(found) // MOST_PHOTOS) or 1]


def _verified(path: Path, *, as_json: bool) -> str:
    from sar_train.export.verify import verify_bundle

    found = verify_bundle(path)
    if as_json:
        return json.dumps({"bundle": str(path)} | dataclasses.asdict(found))
    return (
        f"{path}: intact; probe at cosine {found.probe_cosine:.7f}; {found.names:,} bank rows made again differ by at "
        f"most {found.name_max_difference:.1e}; batches agree to {found.batch_max_difference:.1e}"
    )


def _as_json(out: Path, manifest: Manifest) -> str:
    from sar_train.export.report import size

    content = {
        "bundle": str(out),
        "digest": manifest.digest,
        "encoder_digest": manifest.encoder_digest,
        "bytes": size(manifest),
        "passport": dataclasses.asdict(manifest.passport),
    }
    return json.dumps(content, ensure_ascii=False)
