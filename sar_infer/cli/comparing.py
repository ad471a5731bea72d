"""``sar-bundle compare``: several bundles on the same labelled photos."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import cache_option
from sar_infer.cli.command import Command
from sar_infer.cli.options import emit, format_option, one_blas_thread, option, reported

if TYPE_CHECKING:
    from sar_infer._arrays import Floats
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation.compare import Cost
    from sar_infer.evaluation.curve import Curve
    from sar_infer.evaluation.several import SeveralEvaluation

_ONE_BY_ONE, _BATCH, _TIMED = 9, 16, 48
"""Photos that are timed one by one, of a batch, and in batches."""


@click.command(cls=Command, groups={"Options": "photos several precision cache html form"})
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--photos", required=True, metavar="FOLDER", help="Labelled photos, one folder for each class.")
@click.option(
    "--several",
    metavar="LIST",
    help="Also evaluate photos of several things: a list (.csv, .json) of path and labels, or folders.",
)
@option(
    "--precision",
    multiple=True,
    type=click.Choice(["fp32", "fp16", "int8", "bf16", "auto"]),
    default=("fp32",),
    help="Precision of the image encoders. Repeatable: each bundle in each that it has.",
)
@cache_option
@click.option("--html", type=click.Path(path_type=Path), help="Also write one HTML page.")
@format_option
def compare(
    bundles: Sequence[str],
    photos: str,
    several: str | None,
    precision: Sequence[str],
    cache: Path | None,
    html: Path | None,
    form: str,
) -> None:
    """Compare encoders on your photos, in a minute and without PyTorch.

    For each BUNDLE, a folder, hf://USER/NAME@REVISION or sar-mini: cross-validated accuracy of the class model, also
    with 1, 2, 4 … photos of each class and by name, AUROC of unknown images, milliseconds, memory, disk and licence.
    Differences are those on the same photos. Reports which bundle to take, which are level with the best one, and how
    many photos would tell them apart.

    With --several, mean average precision, precision and recall of the class model of --photos on those of LIST.

    Exit code: 0 if all photos were read; 1 if a photo could not be read; 2 if nothing was compared.
    """
    one_blas_thread()
    with reported(photos):
        from sar_infer import __version__
        from sar_infer.bank.class_bank import Lookup
        from sar_infer.cli.bank.photos import files_by_class
        from sar_infer.cli.evaluating import check_page, watched
        from sar_infer.encoders.cache import photo_cache
        from sar_infer.evaluation.compare import (
            Candidate,
            comparison_content,
            comparison_lines,
            ranked,
            write_comparison,
        )
        from sar_infer.evaluation.several import labels_of

        check_page(html)
        files = files_by_class(Lookup.of(()), {}, [photos])
        labels = {} if several is None else labels_of([several], files.get)
        opened: dict[str, Classifier] = dict(_opened(bundles, precision))
        of_several: dict[str, SeveralEvaluation] = {}
        with photo_cache.stored(cache):
            read = {name: _embedded(name, classifier, files) for name, classifier in opened.items()}
            for name, classifier in opened.items() if labels else ():
                bank = classifier.create(files, skip_unreadable=True)
                of_several[name] = watched(classifier.evaluate_several, labels, len(labels), bank=bank)
                classifier.close_images()
        paths = [path for of_class in files.values() for path in of_class]
        shared = [path for path in paths if all(path in of_bundle for of_bundle in read.values())]
        costs = _costs(opened, shared[:: max(1, len(shared) // _TIMED)])
        curves = {
            name: _curve(classifier, {path: read[name][path] for path in shared}) for name, classifier in opened.items()
        }
        licences = {name: classifier.bundle.manifest.provenance.licences for name, classifier in opened.items()}
        order = ranked(
            [Candidate(name, licences[name], curves[name], costs[name], of_several.get(name)) for name in opened]
        )
        if html is not None:
            facts = {"photos": photos, "made by": f"sar-clip {__version__}"}
            labelled = [(read[order[0].name][path][0], path) for path in shared]
            write_comparison(html, order, labelled, "Which encoder", facts)
        lines = [*comparison_lines(order), *([] if html is None else ["", f"page  {html}"])]
        emit(form, lambda: comparison_content(order) | {"page": html and str(html)}, lines)
    sys.exit(int(len(shared) < len(paths)))


def _opened(bundles: Sequence[str], precisions: Sequence[str]) -> Iterator[tuple[str, Classifier]]:
    """Yield the name of each bundle in each precision, and its classifier.

    Raises:
        BundleError: A bundle cannot be opened.
        InputError: It has none of the precisions.
    """
    from sar_infer.bundle.bundle import bundle_name, open_bundle
    from sar_infer.classifier import Classifier

    names = [bundle_name(one) for one in bundles]
    for location, name in zip(bundles, names, strict=True):
        bundle = open_bundle(location)
        there = [one for one in precisions if one in ("fp32", "auto", *bundle.manifest.precisions)]
        for precision in there or precisions[:1]:
            classifier = Classifier(bundle, precision=precision)  # type: ignore[arg-type] # click has checked it
            title = name if names.count(name) == 1 else location
            yield (
                title if classifier.choice.precision == "fp32" else f"{title} {classifier.choice.precision}",
                classifier,
            )


def _embedded(name: str, classifier: Classifier, files: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, Floats]]:
    """Return class and embedding of each photo by its path, with a bar on a terminal, and warn of unreadable ones."""
    from sar_infer.cli.bank.photos import read_photos

    read = read_photos(classifier, files, skip_unreadable=True, label=f"Encoding with {name}")
    classifier.close_images()
    sets = read.sets.items()
    return {read.files[label, digest]: (label, row) for label, one in sets for digest, row in one.recent.items()}


def _curve(classifier: Classifier, photos: Mapping[str, tuple[str, Floats]]) -> Curve:
    """Return the accuracy on some photos by their number."""
    import numpy as np

    from sar_infer.evaluation.curve import photo_curve

    manifest = classifier.bundle.manifest
    names = list(dict.fromkeys(label for label, _ in photos.values()))
    texts = classifier.class_rows({name: (name,) for name in names}, names)
    labels = np.array([names.index(label) for label, _ in photos.values()])
    rows, named = np.array([row for _, row in photos.values()]), np.full(len(names), manifest.tokenizer is not None)
    return photo_curve(rows, labels, texts, manifest.logit_scale, named=named)


def _costs(opened: Mapping[str, Classifier], photos: Sequence[str]) -> dict[str, Cost]:
    """Return the cost of each bundle by its name, measured in a process of its own."""
    from sar_infer.processes.alone import answer_each

    tasks = [(one.bundle.location, one.choice.precision, photos) for one in opened.values()]
    costs: dict[str, Cost] = {}
    for name, (_, cost) in zip(opened, sorted(answer_each(_timing, tasks, 1)), strict=True):
        if isinstance(cost, BaseException):
            raise cost
        costs[name] = cost
    return costs


def _timing() -> Callable[..., Cost]:
    return _cost


def _cost(location: str, precision: Any, photos: Sequence[str]) -> Cost:
    """Return the cost of a bundle, measured in this process."""
    from sar_infer.classifier import Classifier
    from sar_infer.evaluation.compare import Cost

    classifier = Classifier(location, precision=precision)
    batches = [
        [photos[n % len(photos)] for n in range(start, start + _BATCH)] for start in range(0, 3 * _BATCH, _BATCH)
    ]

    def milliseconds(images: Sequence[str]) -> float:
        began = time.perf_counter()
        classifier.embed_images(images)
        return 1000 * (time.perf_counter() - began) / len(images)

    milliseconds(photos[:1])  # opens the session
    one = statistics.median([milliseconds([photo]) for photo in batches[0][:_ONE_BY_ONE]])
    batch = statistics.median([milliseconds(batch) for batch in batches])
    disk = sum(entry.size for entry in classifier.bundle.manifest.files.values())
    return Cost(one, batch, _peak(), disk / 2**20)


def _peak() -> float | None:
    """Return the most MiB that this process has used; None where the system is not Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return None
