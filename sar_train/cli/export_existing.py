"""``sar-export`` of a bundle that exists: check it again, or write a Triton repository from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click


def verify(bundle: Path, given: Mapping[str, Any], *, as_json: bool, quiet: bool) -> NoReturn:
    """Measure a bundle again and print what moved; exit with code 1 if something moved beyond its bound.

    Args:
        bundle: The folder.
        given: All other options; of them ``photos``, a folder for each class.
        as_json: In place of the table.
        quiet: No progress.

    Raises:
        ConfigError: an option that has no place here.
        SarInferError: the bundle is damaged, there are no photos, or one cannot be read.
        ExportError: the bundle has no probe.
    """
    _refuse_others("--verify", given, "photos")
    from sar_train.export.recheck import moved, recheck
    from sar_train.export.recheck.finding import plain, table
    from sar_train.export.recheck.photos import find_photos

    found = None if given["photos"] is None else find_photos(given["photos"])
    count = 0 if found is None else len(found.paths)
    hidden = quiet or not count or not sys.stderr.isatty()
    with click.progressbar(length=count, label="Photos", file=sys.stderr, hidden=hidden) as progress:
        findings = recheck(bundle, found, progress.update)
    beyond = moved(findings)
    if as_json:
        content = {"bundle": str(bundle), "moved": beyond, "findings": [plain(line) for line in findings]}
        click.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(table(findings))
        click.echo(f"{bundle}: " + ("moved beyond a bound" if beyond else "intact, and within all bounds"))
    sys.exit(int(beyond))


def triton(bundle: Path | None, given: Mapping[str, Any], *, as_json: bool) -> None:
    """Write a Triton model repository and print where it is.

    Args:
        bundle: The folder, as RUN.
        given: All options; of them ``triton``, the new folder, and ``export_precision`` of the image encoder.
        as_json: In place of text.

    Raises:
        ConfigError: an option that has no place here, or no bundle.
        SarInferError: the bundle is damaged, or the repository exists.
        ExportError: the repository does not answer as the bundle does.
    """
    from sar_train.errors import ConfigError

    _refuse_others("--triton", given, "triton", "export_precision")
    if bundle is None:
        raise ConfigError("--triton: expected a BUNDLE folder in place of RUN")
    repository, precisions = given["triton"], given["export_precision"]
    if len(precisions) > 1:
        raise ConfigError(f"--triton: expected one --precision, got {', '.join(precisions)}")
    from sar_train.export.triton import write_repository

    precision = precisions[0] if precisions else "fp32"
    classes = len(write_repository(bundle, repository, precision))
    content = {"repository": str(repository), "bundle": str(bundle), "precision": precision, "classes": classes}
    if as_json:
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        click.echo(f"repository {repository}    {classes:,} classes, image encoder in {precision}")
        click.echo(f"next       {repository / 'README.md'} says how to start Triton with it")


def _refuse_others(flag: str, given: Mapping[str, Any], *allowed: str) -> None:
    from sar_train.errors import ConfigError

    unused = [name for name, value in given.items() if value and name not in allowed]
    if unused:
        option = "RUN" if unused[0] == "run" else "--" + unused[0].removeprefix("export_").replace("_", "-")
        raise ConfigError(f"{flag}: works on a bundle as it is; leave {option} out")
