"""The file of a run folder that holds its fitted statistics and the prompt that they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sar_infer.classifiers.left_out import HANDCRAFTED, LEARNED
from sar_infer.classifiers.statistics import Statistics
from sar_infer.errors import BankError
from sar_train.errors import RunError
from sar_train.training.checkpoint import load_tensors, save_tensors

FILE = "fitted_statistics.safetensors"
_FORMER_FILE = "statistics.safetensors"
"""Its name in older run folders; a bundle has another file of that name."""
FORMAT = "sar-statistics"
SCHEMA_VERSION = 1
PromptName = Literal["learned", "handcrafted"]


@dataclass(frozen=True)
class FittedStatistics:
    """Statistics with the prompt that they belong to.

    Attributes:
        statistics: fitted, or the defaults.
        prompt: the prompt of the bundle.
        template: the hand-crafted one.
        record: the entry of ``record.json``, plain JSON values.
    """

    statistics: Statistics
    prompt: PromptName
    template: str
    record: dict[str, Any]


def save_statistics(folder: Path, fitted: FittedStatistics) -> None:
    """Write the statistics into a run folder, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "prompt": fitted.prompt,
        "template": fitted.template,
        "record": json.dumps(fitted.record, ensure_ascii=False),
    }
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in fitted.statistics.tensors().items()}
    save_tensors(folder / FILE, tensors, metadata)


def remove_statistics(folder: Path) -> None:
    """Remove the statistics of a run folder, if it has any."""
    for name in (FILE, _FORMER_FILE):
        (folder / name).unlink(missing_ok=True)


def load_statistics(folder: Path) -> FittedStatistics | None:
    """Read the statistics of a run folder; None if it has none.

    Raises:
        RunError: the file is damaged, or of a newer version.
    """
    path = folder / (FILE if (folder / FILE).is_file() else _FORMER_FILE)
    if not path.is_file():
        return None
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT or metadata.get("prompt") not in (LEARNED, HANDCRAFTED):
        raise RunError(f"{path}: not a statistics file of sar-train")
    if metadata.get("schema_version") != str(SCHEMA_VERSION):
        raise RunError(f"{path}: schema {metadata.get('schema_version')}, this reads {SCHEMA_VERSION}: upgrade")
    try:
        statistics = Statistics.from_tensors({name: tensor.numpy() for name, tensor in tensors.items()})
        template, record = metadata["template"], json.loads(metadata["record"])
    except (BankError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: {error}; train again, or delete the file to go without statistics") from None
    prompt: PromptName = "learned" if metadata["prompt"] == LEARNED else "handcrafted"
    return FittedStatistics(statistics, prompt, template, record)
