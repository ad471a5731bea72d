"""``sar-classify``: parse, call the classifier, print. Everything heavy is imported after the options are known."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.classify.output import FORMATS
from sar_infer.cli.bulk import check_without_out, classify_in_bulk
from sar_infer.cli.bulk_options import BulkOptions, bulk_options
from sar_infer.cli.classify_options import Options, classify_options
from sar_infer.cli.options import Refusal, one_blas_thread
from sar_infer.cli.stdout import printing
from sar_infer.errors import SarInferError, one_line
from sar_infer.images.inputs import STDIN, expand
from sar_infer.results import Profile

if TYPE_CHECKING:
    from sar_infer.classifier import Classifier
    from sar_infer.classify.class_set import ClassSet
    from sar_infer.results import ImageResult

_PROGRESS_FROM = 32
_BATCH = 16


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("images", nargs=-1, metavar="IMAGE... | SOURCE...")
@classify_options
@bulk_options
@click.option("--info", is_flag=True, help="Describe the bundle (--format text, json or jsonl) and exit.")
@click.version_option(__version__, prog_name="sar-classify")
def main(**values: Any) -> None:
    """Classify photos by class names, those of a bundle's bank and any that you write down.

    IMAGE is a file, a folder, a glob pattern, or - for an image on standard input. SOURCE, with --out, is a file, a
    folder, a glob pattern, a tar shard (webdataset), a Parquet file with the bytes of images, a list (.txt, .lst) of
    paths or URLs, or a URL (s3://, gs://, az://); a run that was interrupted goes on with --resume, and every input has
    one row.

    \b
    sar-classify cat.jpg
    sar-classify photos/ --classes new.txt --top-k 3 --format jsonl
    sar-classify 'photos/**/*.png' --classes new.txt --only
    sar-classify 's3://bucket/shard-{0000..0999}.tar' --out answers/ --resume

    A line of new.txt is a class name, or a name and the phrases to look for: "name = phrase | phrase".

    Exit code: 0 if all images were classified, 1 if one or more could not be read, 2 if nothing was done because
    something in the call is wrong.
    """  # noqa: D301 - \b is for click
    bulk = BulkOptions.taken(values)
    options = Options(**values)
    one_blas_thread()
    try:
        if options.info:
            _print_info(options)
            return
        _check(options, bulk)
        if bulk.out:
            code = classify_in_bulk(options, bulk)
        else:
            with _ended_by_ctrl_c():
                code = min(1, _classify(options))
    except SarInferError as error:
        raise Refusal(str(error)) from None
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let the system end this process at Ctrl-C: Python would wait for threads, of which one may hang in a decoder."""
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so in the background of a script
    if default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _check(options: Options, bulk: BulkOptions) -> None:
    if not options.images:
        raise Refusal("no image given; see sar-classify --help")
    if options.only and not options.classes:
        raise Refusal("--only needs --classes")
    if options.format == "parquet" and not bulk.out:
        raise Refusal("--format parquet needs --out")
    if not bulk.out:
        check_without_out(options.images)


def _classify(options: Options) -> int:
    """Do the work and return how many images could not be read."""
    paths = expand(options.images)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about a picture becomes its error
    profile = Profile()
    classifier, classes = _prepare(options, profile)
    sources = (sys.stdin.buffer.read() if path == STDIN else path for path in paths)
    results = classifier.stream(sources, classes, options.top_k, options.batch_size or _BATCH, profile, options.judging)
    failed = _print(_named(results, paths), options.format, len(paths))
    if options.profile:
        _print_profile(profile, classifier.start())
    return failed


def _prepare(options: Options, profile: Profile) -> tuple[Classifier, ClassSet]:
    """Everything that can be refused, so that nothing is printed before it has been accepted."""
    from sar_infer.classifier import Classifier
    from sar_infer.text.names import read_class_file

    with profile.phase("open"):
        classifier = Classifier.open(options.bundle, options.device, options.bank, options.threads, options.precision)
        classifier.start()
    with profile.phase("names"):
        given = None
        if options.classes:
            file = read_class_file(Path(options.classes), classifier.check_name)
            given = file.classes
            for warning in file.warnings:
                click.echo(f"Warning: {one_line(warning)}", err=True)
        classes = classifier.class_set(given, options.only)
        classifier.judge(classes, options.top_k, options.judging)
        return classifier, classes


def _named(results: Iterator[ImageResult], paths: list[str]) -> Iterator[ImageResult]:
    """Results under the paths that stand on the command line, so that standard input is called ``-``."""
    for result, path in zip(results, paths, strict=True):
        yield dataclasses.replace(result, image=path)


def _print(results: Iterator[ImageResult], form: str, count: int) -> int:
    """Print results as they come and return how many are errors."""
    failed = 0

    def counted() -> Iterator[ImageResult]:
        nonlocal failed
        for result in results:
            failed += result.error is not None
            progress.update(1)
            yield result

    _set_encoding(form)
    hidden = count < _PROGRESS_FROM or not sys.stderr.isatty() or sys.stdout.isatty()
    with click.progressbar(length=count, label="Classifying", file=sys.stderr, hidden=hidden) as progress:
        for piece in FORMATS[form](counted()):
            with printing():
                click.echo(piece, nl=False)
    if failed and form != "text":  # where people read, each stands among the answers
        click.echo(f"{failed:,} of {count:,} images could not be read; each says why in its error", err=True)
    return failed


def _set_encoding(form: str) -> None:
    """Programs get UTF-8 whatever the locale; people get what their terminal can show; odd file names break neither."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if form == "text" else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def _print_profile(profile: Profile, provider: str) -> None:
    click.echo(f"runs on {provider}", err=True)
    for phase, seconds in profile.seconds.items():
        click.echo(f"{phase:<8}{seconds * 1000:10.1f} ms", err=True)


def _print_info(options: Options) -> None:
    """For people in lines; for programs the manifest as it is stored, and the ``path`` of the bundle."""
    if options.format not in ("text", "json", "jsonl"):
        raise Refusal(f"--info: expected --format text, json or jsonl, got {options.format}")
    from sar_infer.artefact.bundle import open_bundle
    from sar_infer.artefact.manifest import MANIFEST

    bundle = open_bundle(Path(options.bundle) if options.bundle else None)
    _set_encoding(options.format)
    if options.format == "text":
        from sar_infer.artefact.describe import describe

        with printing():
            click.echo(describe(bundle), nl=False)
        return
    stored = json.loads((bundle.path / MANIFEST).read_text("utf-8"))
    indent = 2 if options.format == "json" else None
    with printing():
        click.echo(json.dumps({"path": str(bundle.path), **stored}, ensure_ascii=False, indent=indent))


if __name__ == "__main__":
    main()
