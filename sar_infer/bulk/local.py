"""All cores of this machine: one process each, fed with batches by this one, which writes the parts.

A piece is cut into batches, so that one large shard keeps all of them busy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from sar_infer.bulk.answers import Answers, Recipe
from sar_infer.bulk.items import Piece
from sar_infer.bulk.outputs.rows import Form, Packed
from sar_infer.bulk.processes import Pool
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.work import Work, batches


def run_local(
    work: Work, recipe: Recipe, form: Form, workers: int, batch_size: int, progress: Progress
) -> dict[int, str]:
    """Write the parts of all pieces that are left, one after the other; their names by piece.

    Raises:
        SarInferError: a worker cannot start, the encoder fails, or a part cannot be written.
    """
    written: dict[int, str] = {}
    with Pool(recipe, form, workers) as pool:
        left = work.left(progress.warn)
        cut = ((piece, batch) for piece in left for batch in batches(piece, batch_size, progress.pass_over))
        for piece, group in itertools.groupby(pool.in_order(cut), key=lambda pair: pair[0]):
            with work.job.store.stage(work.job.part(piece)) as path:
                form.write(path, _packed(group, progress))
            written[piece.number] = work.job.part(piece)
            progress.finished()
    return written


def _packed(answered: Iterable[tuple[Piece, Answers]], progress: Progress) -> Iterator[Packed]:
    for _, answers in answered:
        progress.count(answers.inputs, answers.rejected)
        yield answers.packed
