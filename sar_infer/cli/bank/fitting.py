"""``sar-bank fit``: fit class statistics to the photos that a bank keeps."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.bank.common import BankArguments, again, changing, on_bank, shared_options, write

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.classifiers.bank_fitting import BankFitting

_FEW_CLASSES = 20
_NUMBERS = {0: "by name", 1: "by 1 photo", 2: "by 2 photos", 4: "by 4 photos"}


@click.command()
@on_bank
@shared_options
def fit(arguments: BankArguments) -> None:
    """Fit class statistics to a bank's photos.

    Takes seconds and no PyTorch. Needs four classes with two photos or more. Classes are left out in turn and added
    again, by name and by photos, beside all other classes of the bank; what does best there is kept, and ranks from
    then on: covariance, weight and offsets of photos, and the temperature that makes scores percentages one can
    believe. Prints what accuracy may be expected. Photos that are added later move their own class alone; fit again
    when there are many. One step of history, undone like any other.
    """
    from sar_infer.bank import fit as edit

    with changing(arguments) as workspace:
        started = time.perf_counter()
        fitting = workspace.classifier.fit_model(bank=workspace.bank)
        seconds = time.perf_counter() - started
        after = edit(workspace.bank, fitting.tensors, by="sar-bank fit")
        write(arguments, workspace, after, fit=_content(fitting, seconds))
        if arguments.form == "text":
            for line in _lines(fitting, seconds):
                click.echo(line)


def advice(arguments: BankArguments, before: ClassBank, after: ClassBank) -> str | None:
    """Return a line that says that a bank can be fitted since photos were added; None if not, or if it was fitted."""
    from sar_infer.classifiers.trained_statistics import enough

    if after.fitted is not None or after is before or not enough(after.photos):
        return None
    return f"enough photos to fit class statistics, which answer better: {again(arguments, 'fit')}"


def _content(fitting: BankFitting, seconds: float) -> dict[str, Any]:
    """Return the report for programs; accuracies in per cent."""
    choice, confidence = fitting.choice, fitting.statistics.confidence
    return {
        "classes": list(fitting.classes),
        "photos": fitting.photos,
        "pooled_classes": fitting.trained,
        "seconds": round(seconds, 2),
        "alpha": choice.alpha,
        "temperature": None if confidence is None else confidence.temperature,
        "expected": [asdict(item) for item in choice.expected],
        "fitted_classes": [{"photos": photos, "accuracy": accuracy} for photos, accuracy in choice.trained.items()],
    }


def _lines(fitting: BankFitting, seconds: float) -> list[str]:
    choice, confidence = fitting.choice, fitting.statistics.confidence
    count = len(fitting.classes)
    pooled = f" (and {fitting.trained:,} of the bundle's training)" if fitting.trained else ""
    temperature = "" if confidence is None else f", temperature {confidence.temperature:.2f}"
    expected = [item for item in choice.expected if item.photos in (0, 1, 2, 4)]
    ways = [f"{_NUMBERS[item.photos]} {item.accuracy:.0f} % ({item.low:.0f}-{item.high:.0f})" for item in expected]
    return [
        f"{count:,} classes{pooled}, {fitting.photos:,} photos, {seconds:.1f} s; alpha {choice.alpha:g}{temperature}",
        f"other photos of these classes: about {choice.trained[0]:.0f} % right",
        f"classes that you add: {', '.join(ways)} right",
        f"estimates for {count:,} more classes, from these {count:,} left out in turn, 95 % intervals"
        + ("; with so few classes a rough guide" if count < _FEW_CLASSES else ""),
    ]
