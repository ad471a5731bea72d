"""``sar-classify``: images to standard output; ``bulk`` does the same with ``--out``."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.classify.output import FORMATS
from sar_infer.cli.bulk import bulk_options, check_without_out, classify_in_bulk
from sar_infer.cli.command import Command
from sar_infer.cli.evaluating import check_page, of_training, report, watched
from sar_infer.cli.options import (
    CONTEXT,
    COUNT,
    Paths,
    Refusal,
    model_options,
    one_blas_thread,
    option,
    printing,
    progress_bar,
    read_classes,
    set_encoding,
    warn,
)
from sar_infer.errors import SarInferError, reason_of
from sar_infer.images.inputs import STDIN, expand_present, folders
from sar_infer.profile import Profile
from sar_infer.results import DecisionOptions

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.classifier import Classifier
    from sar_infer.classify.class_set import ClassSet
    from sar_infer.results import ImageResult

GROUPS = {"Classes": "bundle banks classes examples", "Answers": "top_k unknown several", "Output": "format out"}
_FACTS = ("bundle", "bank", "classes", "examples")
_PROGRESS_FROM = 32
_BATCH = 16


@click.command(cls=Command, groups=GROUPS, context_settings=CONTEXT)
@click.argument("images", nargs=-1, metavar="IMAGE... | SOURCE...")
@model_options
@option(
    "--bank",
    "banks",
    type=Paths(),
    multiple=True,
    help="Bank file to use instead of the bundle's classes. Repeatable: each ranks every image, which is encoded once.",
)
@option("--classes", metavar="NAMES", help="Class names with commas between, or a text file with one per line.")
@option("--examples", type=click.Path(), help="Folder of example photos, one folder for each class.")
@option(
    "--only/--extend",
    default=None,
    help="Use only the classes of --classes or --examples, or the bank's too.  [default: replace a bundle's default "
    "names, extend other classes]",
)
@option("--top-k", type=COUNT, default=5, help="Classes to print for each image.")
@option("--unknown", is_flag=True, help="Report images that seem to show none of the classes as unknown.")
@option(
    "--threshold",
    type=float,
    metavar="X",
    help="With --unknown: probability above which an image is unknown.  [default: the bank's]",
)
@option(
    "--coverage",
    type=float,
    metavar="P",
    help="Print a set of classes that contains the correct one with this probability, such as 0.9.",
)
@option(
    "--several", is_flag=True, help="Report each class that an image shows, or none, from the image and its quarters."
)
@option("--explain", is_flag=True, help="Print the margin and the classes nearest to the predicted one.")
@option(
    "--format",
    type=click.Choice([*FORMATS, "parquet"]),
    default="text",
    envvar="SAR_CLASSIFY_FORMAT",  # SAR_FORMAT is text or json, which all other commands know
    help="Output format. With --out: parquet (the default there) or jsonl.",
)
@option("--evaluate", is_flag=True, help="Measure the accuracy. IMAGE is a folder with one folder for each class.")
@option("--html", type=click.Path(path_type=Path), help="With --evaluate: also write one HTML page.")
@option("--strict", is_flag=True, help="With --evaluate: refuse if a photo looks like another class.")
@option("--profile", is_flag=True, help="Print the seconds of each step and the device to stderr.")
@option("--threads", type=COUNT, help="Threads of the encoder.  [default: onnxruntime's]")
@option("--batch-size", type=COUNT, help="Images encoded together.  [default: 16; with --out 4, or 64 on a GPU]")
@bulk_options
@click.version_option(__version__, prog_name="sar-classify")
def main(**values: Any) -> None:
    """Classify photos: by the classes of a bundle, by your own, or by both.

    IMAGE is a file, a folder, a glob pattern, or - for an image on standard input. With --out, SOURCE may also be a
    tar shard, a Parquet file of images, a list (.txt, .lst) of paths or URLs, or a URL (s3://, gs://, az://). The
    output has one row for each input. --resume continues an interrupted run.

    \b
    sar-classify cat.jpg
    sar-classify photos/ --classes cat,dog --top-k 3 --format jsonl
    sar-classify 'photos/**/*.png' --classes new.txt --only
    sar-classify photos/ --examples garments/ --only
    sar-classify labelled/ --examples garments/ --only --evaluate --html page.html
    sar-classify 's3://bucket/shard-{0000..0999}.tar' --out answers/ --resume

    A line of new.txt is a class name, or "name = phrase | phrase" to average several phrasings.

    Exit code: 0 if all images were classified; 1 if an image could not be read, or if a run with --out stopped early;
    2 if the call is wrong, and nothing was done; 130 after Ctrl-C; 143 after SIGTERM.
    """  # noqa: D301 - \b is for click
    options = SimpleNamespace(**values, bank=values["banks"][0] if values["banks"] else None)
    options.banks = values["banks"] if len(values["banks"]) > 1 else ()
    one_blas_thread()
    try:
        _check(options)
        if options.out:
            code = classify_in_bulk(options, _decision(options))
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


def _decision(options: SimpleNamespace) -> DecisionOptions:
    answers = options.unknown, options.threshold, options.coverage, options.explain
    return DecisionOptions(*answers, several=options.several)


def _check(options: SimpleNamespace) -> None:
    if not options.images:
        raise Refusal("no image given: sar-classify IMAGE")
    for name in ("bundle", "classes", "examples", "html", "out"):
        if getattr(options, name) == "":  # as of a shell variable that is not set
            raise Refusal(f"--{name}: expected a value, got an empty text")
    if options.only is not None and not options.classes and not options.examples:
        raise Refusal("--only and --extend need --classes or --examples")
    if options.examples and options.out:
        raise Refusal(
            "--out takes no --examples; keep them in a bank: sar-bank add FILE --photos FOLDER, then --bank FILE"
        )
    needed = {"resume": "out", "embeddings": "out", "html": "evaluate", "strict": "evaluate"}
    for name, other in needed.items():
        if getattr(options, name) and not getattr(options, other):
            raise Refusal(f"--{name} needs --{other}")
    if options.format == "parquet" and not options.out:
        raise Refusal("--format parquet needs --out")
    for name in ("evaluate", "examples"):
        if options.banks and getattr(options, name):
            raise Refusal(f"--{name} takes one --bank at most")
    if options.evaluate:
        if options.out:
            raise Refusal("--evaluate and --out cannot be combined; leave one out")
        if options.format not in ("text", "json"):
            raise Refusal(f"--evaluate: expected --format text or json, got {options.format}")
        check_page(options.html)
    if not options.out:
        check_without_out(options.images)


def _evaluate(options: SimpleNamespace) -> int:
    """Evaluate the answers for labelled photos, and return how many photos could not be read."""
    from sar_infer.cli.bank.photos import files_by_class

    warnings.filterwarnings("ignore", module="PIL")
    classifier, class_phrases, bank = _prepare(options, Profile())
    photos = files_by_class((bank or classifier.bank).lookup, {}, options.images)
    only, count = options.only if bank is None else None, sum(map(len, photos.values()))
    evaluation = watched(classifier.evaluate, photos, count, classes=class_phrases, only=only, bank=bank)
    facts = {name: value for name in _FACTS if (value := getattr(options, name))}
    facts["photos"] = ", ".join(options.images)
    title = f"Evaluation on {options.images[0]}"
    training = of_training(evaluation, classifier.bundle, bank or classifier.bank)
    return report(evaluation, options.format, options.html, title, facts, training=training, strict=options.strict)


def _classify(options: SimpleNamespace) -> int:
    """Classify the images, print the results, and return how many images could not be read."""
    from sar_infer.bundle.bank_file import banks_by_name

    paths = expand_present(options.images, warn)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    profile = Profile()
    classifier, class_phrases, bank = _prepare(options, profile)
    with profile.phase("names"):
        classes: ClassSet | dict[str, ClassSet]
        if options.banks:
            banks = banks_by_name(options.banks, classifier.bundle)
            classes = {name: classifier.class_set(class_phrases, options.only, one) for name, one in banks.items()}
        else:
            classes = classifier.class_set(class_phrases, options.only if bank is None else None, bank)
    piped = b""
    if STDIN in paths:
        try:
            piped = sys.stdin.buffer.read()
        except (AttributeError, OSError) as error:
            reason = "it is closed" if sys.stdin is None else reason_of(error)
            raise Refusal(f"{STDIN}: standard input cannot be read: {reason}") from None
    sources = (piped if path == STDIN else path for path in paths)
    batch_size = options.batch_size or _BATCH
    results = classifier.stream(sources, classes, options.top_k, batch_size, profile, _decision(options), paths)
    failed = _print(results, options.format, len(paths))
    if options.profile:
        click.echo(f"runs on {classifier.start()}", err=True)
        for phase, seconds in profile.seconds.items():
            click.echo(f"{phase:<8}{seconds * 1000:10.1f} ms", err=True)
    return failed


def _prepare(
    options: SimpleNamespace, profile: Profile
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

    def noted() -> Iterator[ImageResult]:
        nonlocal failed
        for result in results:
            failed += result.error is not None
            bar.update(1)
            yield result

    set_encoding(form)
    with progress_bar(count, "Classifying", count if sys.stdout.isatty() else _PROGRESS_FROM) as bar:
        for piece in FORMATS[form](noted()):
            with printing():
                click.echo(piece, nl=False)
    if failed and form != "text":  # as text, each failure is among the answers
        click.echo(f"{failed:,} of {count:,} images could not be read; see the error of each", err=True)
    return failed


if __name__ == "__main__":
    main()
