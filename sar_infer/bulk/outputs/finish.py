"""The end of a run: rejected inputs in one list, a summary, and one file of all parts where one was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sar_infer.bulk.outputs.job import Job
from sar_infer.bulk.outputs.rows import Form
from sar_infer.bulk.outputs.store import LocalFolder, Store, write_text

REJECTED = "_rejected.jsonl"
SUCCESS = "_SUCCESS.json"


@dataclass(frozen=True)
class Summary:
    """What a finished run has done.

    Attributes:
        inputs: Rows, one an input.
        classified: Rows with an answer.
        rejected: Rows without one.
        pieces: Parts.
        resumed: Parts that an earlier, interrupted run had finished.
        seconds: Of the last run.
        rate: Inputs a second of the last run.
    """

    inputs: int
    classified: int
    rejected: int
    pieces: int
    resumed: int
    seconds: float
    rate: float


@dataclass(frozen=True)
class Ended:
    """What the last run itself did: inputs, seconds, and parts that it found."""

    inputs: int
    seconds: float
    resumed: int


def finish_folder(job: Job, form: Form, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``_rejected.jsonl`` and ``_SUCCESS.json`` beside the parts; with shards, each its own."""
    summary = _collect(job.store, job.shard.named(REJECTED), job.store, form, parts, ended)
    write_text(job.store, job.shard.named(SUCCESS), _dumped(summary, job.settings))
    return summary


def finish_file(file: Path, job: Job, form: Form, parts: Sequence[str], ended: Ended) -> Summary:
    """Write ``FILE.rejected.jsonl``, FILE and ``FILE.summary.json``; with the last the run is over."""
    folder = LocalFolder(file.parent)
    summary = _collect(folder, f"{file.name}.rejected.jsonl", job.store, form, parts, ended)
    with folder.stage(file.name) as path:
        form.merge(path, (partial(job.store.open, name) for name in parts))
    write_text(folder, summary_file(file).name, _dumped(summary, job.settings))
    return summary


def summary_file(file: Path) -> Path:
    """Where the summary of a single file is."""
    return file.with_name(f"{file.name}.summary.json")


def finished(file: Path, settings: Mapping[str, Any]) -> Summary | None:
    """The summary of a file that is complete and of these settings."""
    try:
        found = json.loads(summary_file(file).read_text("utf-8"))
        return Summary(**found["summary"]) if file.is_file() and found["settings"] == settings else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _collect(target: Store, name: str, store: Store, form: Form, parts: Sequence[str], ended: Ended) -> Summary:
    inputs = rejected = 0
    with target.stage(name) as path, path.open("w", encoding="utf-8") as lines:
        for part in parts:
            with store.open(part) as stream:
                count, flaws = form.flaws(stream)
            inputs += count
            rejected += len(flaws)
            where = {"part": part} if target is store else {}  # who removes a part has it done again
            lines.writelines(json.dumps(flaw | where, ensure_ascii=False) + "\n" for flaw in flaws)
    seconds = round(ended.seconds, 3)
    rate = round(ended.inputs / max(ended.seconds, 1e-9), 2)
    return Summary(inputs, inputs - rejected, rejected, len(parts), ended.resumed, seconds, rate)


def _dumped(summary: Summary, settings: Mapping[str, Any]) -> str:
    return json.dumps({"summary": asdict(summary), "settings": settings}, indent=2, ensure_ascii=False) + "\n"
