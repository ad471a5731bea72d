"""The evaluation of a run's test photos, as the page that ``sar-bank evaluate`` makes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from sar_infer.errors import WriteError
from sar_infer.evaluation.evaluation import RANKED, Answer, evaluate
from sar_infer.evaluation.report import write_evaluation
from sar_train.data.task import Evaluated
from sar_train.errors import RunError
from sar_train.evaluation.accuracy import distinct
from sar_train.training.context import RunContext

PAGE = "evaluation.html"


def write_page(context: RunContext, logits_of: Callable[[Evaluated], Tensor], folder: Path) -> None:
    """Write the page of a run's test photos of the trained classes; nothing where there are none.

    Args:
        context: of the run.
        logits_of: returns (N, C) of the trained classes for evaluated photos, as a bundle of the run answers.
        folder: the run's.

    Raises:
        RunError: the page cannot be written.
    """
    base, dataset = context.task.base, context.features.dataset
    if base is None:
        return
    names, photos = distinct(context.task.class_names), dataset.photos(base.split)
    logits = logits_of(base).double().cpu()
    best = logits.topk(min(RANKED, len(names)))
    scores = (best.values - logits.logsumexp(1, keepdim=True)).exp()
    answers, sources = [], dict[str, Path]()
    columns = zip(base.rows.tolist(), base.labels.tolist(), best.indices.tolist(), scores.tolist(), strict=True)
    for row, label, classes, shares in columns:
        path = photos[row].path
        name = path or f"{base.split} photo {row + 1}"  # one of a feature file has no path
        if path:
            sources[name] = dataset.root / path
        rank = classes.index(label) + 1 if label in classes else None
        share = None if rank is None else shares[rank - 1]
        answers.append(Answer(name, names[label], names[classes[0]], shares[0], rank, share))
    evaluation = evaluate(answers, len(names))
    facts = {"photos": f"{context.config.data}, {base.split}", "method": context.config.method, "run": folder.name}
    title = f"Evaluation of {folder.resolve().name}"
    try:
        write_evaluation(folder / PAGE, evaluation, title, facts, sources=lambda name: sources.get(name, b""))
    except WriteError as error:
        raise RunError(str(error)) from None
