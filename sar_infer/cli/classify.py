"""``sar-classify``: images to standard output; ``bulk`` does the same with ``--out``."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.classify.output import FORMATS
from sar_infer.cli.bulk import BulkOptions, bulk_options, check_without_out, classify_in_bulk
from sar_infer.cli.classify_options import ClassifyArguments, classify_options
from sar_infer.cli.evaluating import check_page, evaluated, labelled_photos, report
from sar_infer.cli.options import (
    CONTEXT,
    GroupedCommand,
    Refusal,
    one_blas_thread,
    printing,
    read_classes,
    set_encoding,
    warn,
)
from sar_infer.errors import SarInferError, reason_of
from sar_infer.images.inputs import STDIN, expand_present, folders
from sar_infer.results import Profile

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.classifier import Classifier
    from sar_infer.results import ImageResult

GROUPS = {
    "Options": ("bundle", "bank", "classes", "examples", "only", "top_k"),
    "Decision": ("unknown", "threshold", "coverage", "explain"),
    "Speed": ("device", "precision", "threads", "batch_size", "profile"),
    "Bulk runs": (
        *("out", "resume", "workers", "engine", "address", "image_timeout"),
        *("column", "key_column", "chunk_size", "embeddings", "progress"),
    ),
    "Evaluation": ("evaluate", "html", "strict"),
    "Output": ("format", "info"),
}
_FACTS = ("bundle", "bank", "classes", "examples")
_PROGRESS_FROM = 32
_BATCH = 16


@click.command(cls=GroupedCommand, groups=GROUPS, context_settings=CONTEXT)
@click.argument("images", nargs=-1, metavar="IMAGE... | SOURCE...")
@classify_options
@bulk_options
@click.option("--info", is_flag=True, help="Describe the bundle (--format text, json or jsonl) and exit.")
@click.version_option(__version__, prog_name="sar-classify")
def main(**values: Any) -> None:
    """Classify photos by class names: those of a bundle's bank, and any that you give.

    IMAGE is a file, a folder, a glob pattern, or - for an image on standard input. SOURCE, with --out, is a file, a
    folder, a glob pattern, a tar shard (webdataset), a Parquet file with the bytes of images, a list (.txt, .lst) of
    paths or URLs, or a URL (s3://, gs://, az://); a run that was interrupted goes on with --resume, and every input has
    one row.

    \b
    sar-classify cat.jpg
    sar-classify photos/ --classes new.txt --top-k 3 --format jsonl
    sar-classify 'photos/**/*.png' --classes new.txt --only
    sar-classify photos/ --examples garments/ --only
    sar-classify labelled/ --examples garments/ --only --evaluate --html page.html
    sar-classify 's3://bucket/shard-{0000..0999}.tar' --out answers/ --resume

    A line of new.txt is a class name, or a name and the phrases to look for: "name = phrase | phrase".

    Exit code: 0 if all images were classified; 1 if one or more could not be read, or a run with --out stopped before
    its end; 2 if nothing was done because something in the call is wrong; 130 and 143 after Ctrl-C and SIGTERM.
    """  # noqa: D301 - \b is for click
    bulk = BulkOptions.pop_from(values)
    options = ClassifyArguments(**values)
    one_blas_thread()
    try:
        if options.info:
            if options.format not in ("text", "json", "jsonl"):
                raise Refusal(f"--info: expected --format text, json or jsonl, got {options.format}")
            from sar_infer.cli.bundle import print_bundle

            print_bundle(options.bundle or None, options.format)
            return
        _check(options, bulk)
        if bulk.out:
            code = classify_in_bulk(options, bulk)
        else:
            with _ended_by_ctrl_c():
                code = min(1, (_evaluate if options.evaluate else _classify)(options))
    except SarInferError as error:
        raise Refusal(str(error)) from None
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let the system end this process at Ctrl-C: Python would wait for its threads, and one may hang in a decoder."""
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so in the background of a script
    if default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _check(options: ClassifyArguments, bulk: BulkOptions) -> None:
    if not options.images:
        raise Refusal("no image given; see sar-classify --help")
    if options.only and not options.classes and not options.examples:
        raise Refusal("--only needs --classes or --examples")
    if options.examples and bulk.out:
        raise Refusal(
            "--out takes no --examples; keep them in a bank: sar-bank add FILE --photos FOLDER, then --bank FILE"
        )
    if options.format == "parquet" and not bulk.out:
        raise Refusal("--format parquet needs --out")
    if options.html and not options.evaluate:
        raise Refusal("--html is the page of an evaluation; it needs --evaluate")
    if options.strict and not options.evaluate:
        raise Refusal("--strict is about labels of photos; it needs --evaluate")
    if options.evaluate:
        if bulk.out:
            raise Refusal("--evaluate takes no --out; it prints what it measures")
        if options.format not in ("text", "json"):
            raise Refusal(f"--evaluate: expected --format text or json, got {options.format}")
        check_page(options.html)
    if not bulk.out:
        check_without_out(options.images)


def _evaluate(options: ClassifyArguments) -> int:
    """Evaluate the answers for labelled photos, and return how many photos could not be read."""
    warnings.filterwarnings("ignore", module="PIL")
    classifier, class_phrases, bank = _prepare(options, Profile())
    photos = labelled_photos(options.images, (bank or classifier.bank).lookup.get)
    evaluation = evaluated(classifier, photos, class_phrases, options.only and bank is None, bank=bank)
    facts = {name: value for name in _FACTS if (value := getattr(options, name))}
    facts["photos"] = ", ".join(options.images)
    title = f"Evaluation on {options.images[0]}"
    return report(evaluation, options.format, options.html, title, facts, strict=options.strict)


def _classify(options: ClassifyArguments) -> int:
    """Classify the images, print the results, and return how many images could not be read."""
    paths = expand_present(options.images, warn)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    profile = Profile()
    classifier, class_phrases, bank = _prepare(options, profile)
    with profile.phase("names"):
        classes = classifier.class_set(class_phrases, options.only and bank is None, bank)
    piped = b""
    if STDIN in paths:
        try:
            piped = sys.stdin.buffer.read()
        except (AttributeError, OSError) as error:
            reason = "it is closed" if sys.stdin is None else reason_of(error)
            raise Refusal(f"{STDIN}: standard input cannot be read: {reason}") from None
    sources = (piped if path == STDIN else path for path in paths)
    batch_size = options.batch_size or _BATCH
    results = classifier.stream(sources, classes, options.top_k, batch_size, profile, options.decision, paths)
    failed = _print(results, options.format, len(paths))
    if options.profile:
        click.echo(f"runs on {classifier.start()}", err=True)
        for phase, seconds in profile.seconds.items():
            click.echo(f"{phase:<8}{seconds * 1000:10.1f} ms", err=True)
    return failed


def _prepare(
    options: ClassifyArguments, profile: Profile
) -> tuple[Classifier, Mapping[str, tuple[str, ...]] | None, ClassBank | None]:
    """Open the bundle, and return it with the names of the call, and the bank of its examples if there are any."""
    from sar_infer.classifier import Classifier

    with profile.phase("open"):
        classifier = Classifier.open(options.bundle, options.device, options.bank, options.threads, options.precision)
        classifier.start()
        if caution := classifier.choice.caution:
            warn(caution)
    with profile.phase("names"):
        class_phrases = read_classes(options.classes, classifier.check_name) if options.classes else None
        if not options.examples:
            return classifier, class_phrases, None
        return classifier, None, classifier.create(folders(options.examples, warn), classes=class_phrases)


def _print(results: Iterator[ImageResult], form: str, count: int) -> int:
    """Print results as they arrive and return how many are errors."""
    failed = 0

    def counted() -> Iterator[ImageResult]:
        nonlocal failed
        for result in results:
            failed += result.error is not None
            progress.update(1)
            yield result

    set_encoding(form)
    hidden = count < _PROGRESS_FROM or not sys.stderr.isatty() or sys.stdout.isatty()
    with click.progressbar(length=count, label="Classifying", file=sys.stderr, hidden=hidden) as progress:
        for piece in FORMATS[form](counted()):
            with printing():
                click.echo(piece, nl=False)
    if failed and form != "text":  # as text, each failure is among the answers
        click.echo(f"{failed:,} of {count:,} images could not be read; see the error of each", err=True)
    return failed


if __name__ == "__main__":
    main()
