"""``sar-export`` with ``--precision`` and ``--jpeg-margin``: options, their checks, and the last lines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sar_infer.cli.options import Number
from sar_train.cli.common import option

if TYPE_CHECKING:
    from sar_infer.artefact.manifest import Manifest
    from sar_train.export.precision.derive import Derived, Outcome, Wanted
    from sar_train.export.precision.samples import Photos

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    option(
        "--precision",
        "export_precision",  # so that its environment variable is not SAR_PRECISION, which the run time uses
        type=click.Choice(["fp16", "int8"]),
        multiple=True,
        help="Add smaller graphs, each if it passes its gate on --photos; several times. RUN may be a bundle.",
    ),
    option(
        "--jpeg-margin",
        type=Number(min=1, max=16),
        metavar="X",
        help="Let large JPEGs be decoded at a reduced scale that leaves X times the encoder's size, if those of "
        "--photos pass.",
    ),
    option(
        "--min-cosine",
        type=Number(0, 1),
        help="With --precision: least cosine of the worst photo or name.  [default: 0.9999 for fp16, 0.97 for int8]",
    ),
    option(
        "--min-agreement",
        type=Number(0, 1),
        help="With --precision: least share with the same answer.  [default: 0.995 for fp16, 0.98 for int8]",
    ),
)


def precision_options(command: Decorated) -> Decorated:
    """Add the options to a command."""
    done: Any = command
    for add in reversed(_OPTIONS):
        done = add(done)
    return done  # type: ignore[no-any-return]


@dataclass(frozen=True)
class PrecisionOptions:
    """Options of the command line; every field is the parameter of that name."""

    export_precision: tuple[str, ...]
    jpeg_margin: float | None
    min_cosine: float | None
    min_agreement: float | None

    @classmethod
    def take_from(cls, given: dict[str, Any]) -> PrecisionOptions:
        """Take the options out of all that were given."""
        return cls(**{name: given.pop(name) for name in cls.__dataclass_fields__})

    def __bool__(self) -> bool:
        return bool(self.export_precision) or self.jpeg_margin is not None

    def check(self, run: Path | None, given: Mapping[str, Any]) -> bool:
        """Return True if RUN is a bundle that these options add to.

        Raises:
            ConfigError: options that contradict each other.
        """
        from sar_infer.artefact.manifest import MANIFEST
        from sar_train.errors import ConfigError

        if self and given["photos"] is None:
            raise ConfigError("--precision and --jpeg-margin are judged on real photos: add --photos FOLDER")
        if not self.export_precision and (self.min_cosine is not None or self.min_agreement is not None):
            raise ConfigError("--min-cosine and --min-agreement are bounds of --precision, which was not given")
        if run is None or not (run / MANIFEST).is_file():
            return False
        if not self:
            raise ConfigError(f"{run}: a bundle, not a run; say what it should get: --precision or --jpeg-margin")
        unused = [name for name, value in given.items() if value and name != "photos"]
        if unused:
            option = unused[0].replace("_", "-")
            raise ConfigError(f"{run}: a bundle, whose encoder and bank stay as they are; leave --{option} out")
        return True

    def photos(self, folder: Path) -> Photos | None:
        """Return images to calibrate and to judge with; None where nothing is to be added.

        Raises:
            ConfigError: too few.
            InputError: there are none.
        """
        if not self:
            return None
        from sar_infer.images.inputs import expand
        from sar_train.export.precision.samples import split

        return split([Path(path) for path in expand([str(folder)])], folder)

    def write(
        self, source: Path, out: Path, photos: Photos, *, overwrite: bool, tell: Callable[[str], None]
    ) -> Derived:
        """Write the bundle ``source`` with all that was asked for and passed to ``out``.

        Raises:
            NothingPassedError: nothing that was asked for passed.
        """
        from sar_train.export.precision.derive import derive

        return derive(
            source,
            out,
            self._wanted(),
            photos,
            command=shlex.join(["sar-export", *sys.argv[1:]]),
            overwrite=overwrite,
            tell=tell,
        )

    def _wanted(self) -> Wanted:
        from sar_train.export.precision.derive import Wanted
        from sar_train.export.precision.gate import GATES

        gates = {name: GATES[name].with_least(self.min_cosine, self.min_agreement) for name in self.export_precision}
        return Wanted(gates, self.jpeg_margin)


def add(
    options: PrecisionOptions,
    out: Path,
    manifest: Manifest,
    photos: Photos,
    *,
    as_json: bool,
    tell: Callable[[str], None],
) -> None:
    """Add smaller graphs or a JPEG margin to a bundle that has just been written, and print the outcome."""
    from sar_train.export.precision.derive import NothingPassedError
    from sar_train.export.report import plain

    try:
        made = options.write(out, out, photos, overwrite=True, tell=tell)
    except NothingPassedError as error:
        if as_json:
            click.echo(plain(out, manifest, error.outcome))
        raise
    finish(out, made.manifest, made.outcome, as_json=as_json)


def finish(out: Path, manifest: Manifest, outcome: Outcome, *, as_json: bool) -> None:
    """Print the outcome of a bundle with smaller graphs or a JPEG margin.

    Raises:
        ExportError: a part that was asked for is not in it.
    """
    from sar_train.errors import ExportError
    from sar_train.export.report import plain

    if as_json:
        click.echo(plain(out, manifest, outcome))
    else:
        use = [f"next       sar-classify PHOTO --bundle {shlex.quote(str(out))} --precision {p}" for p in outcome.runs]
        click.echo("\n".join([*outcome.lines, f"bundle     {out}", *use]))
    if outcome.missing:
        raise ExportError(f"left out: {'; '.join(outcome.missing)}; {out} was written without")
