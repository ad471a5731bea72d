"""Compare wrapped graphs with the published ones, and photos with their names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from sar_infer._arrays import Floats
from sar_infer.encoders.encoders import unit_rows
from sar_infer.encoders.parity import MIN_COSINE, Check
from sar_infer.encoders.sessions import open_session, run_options
from sar_infer.encoders.waiting import TRIAL_SECONDS, within
from sar_infer.errors import reason_of
from sar_train.errors import ConfigError, ExportError
from sar_train.export.importing.graphs import Published
from sar_train.export.importing.tokens import MASK

_PHOTOS = Path(__file__).with_name("photos")
_CHANCE = 0.01
"""Probability of an accuracy that chance alone reaches."""


def shipped_photos() -> dict[str, Path]:
    """Return photos of distinct things by their names."""
    return {path.stem: path for path in sorted(_PHOTOS.glob("*.jpg"))}


def published_rows(tower: Published, graph: Path, items: npt.NDArray[Any], end_token: int) -> Floats:
    """Return unit rows (N, D) of a published graph for pixels or tokens (N, ...), run one by one.

    Args:
        tower: The graph.
        graph: Its file, next to its data.
        items: The input.
        end_token: The mask has ones through the first such token, or everywhere if there is none.

    Raises:
        ConfigError: onnxruntime cannot run the graph, or it takes too long.
        BundleError: onnxruntime does not accept the graph.
    """
    session, options = open_session(graph, "cpu"), run_options()
    kinds = {port.name: helper.tensor_dtype_to_np_dtype(port.kind) for port in (tower.port, tower.mask) if port}
    rows = []
    for item in items:
        feed = {tower.port.name: item[np.newaxis]}
        if tower.mask:
            ends = np.flatnonzero(item == end_token)
            feed[MASK] = (np.arange(len(item)) <= (ends[0] if len(ends) else len(item)))[np.newaxis]
        feed = {name: value.astype(kinds[name]) for name, value in feed.items()}
        try:
            run = within(
                TRIAL_SECONDS,
                lambda feed=feed: session.run([tower.output.name], feed, options),  # type: ignore[misc]
                lambda: setattr(options, "terminate", True),
            )
        except TimeoutError:
            raise ConfigError(f"{tower.name}: has given no answer within {TRIAL_SECONDS:g} s") from None
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ConfigError(f"{tower.name}: onnxruntime cannot run this graph: {reason_of(error)}") from None
        if run[0].ndim != 2 or len(run[0]) != 1:
            raise ConfigError(f"{tower.name}: expected an embedding (1, D) of one input, got {run[0].shape}")
        rows.append(run[0][0])
    if len({len(row) for row in rows}) != 1:
        raise ConfigError(f"{tower.name}: gives embeddings of several lengths")
    return unit_rows(np.array(rows, np.float32))


def parity(what: str, rows: Floats, published: Floats) -> Check:
    """Return the check that unit rows (N, D) are those of the published graph."""
    cosine = float((rows * published).sum(1).min())
    return Check(f"{what}, least cosine to the published graph on {len(rows)} items", cosine, "at least", MIN_COSINE)


def agreement(images: Floats, names: Floats) -> int:
    """Return how many of N images (N, D) are nearest to their own name (N, D).

    Raises:
        ExportError: So few that chance reaches it.
    """
    count = len(images)
    correct = int(((images @ names.T).argmax(1) == np.arange(count)).sum())
    by_chance = sum(
        math.comb(count, hits) * (1 / count) ** hits * (1 - 1 / count) ** (count - hits)
        for hits in range(correct, count + 1)
    )
    if by_chance >= _CHANCE:
        raise ExportError(
            f"the towers do not agree: {correct} of {count} shipped photos are nearest to their own name, which chance "
            "reaches; likely causes: the padding of names, an output that is not the projected embedding, or towers of "
            "two models; add --no-check for towers of other things"
        )
    return correct
