"""Sweeps: runs with a result are skipped, the others executed, and each result is a file of its own."""

from __future__ import annotations

import glob
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sar_train.data.files import write_atomic
from sar_train.data.progress import ProgressCallback
from sar_train.experiment import code
from sar_train.experiment.job import Job
from sar_train.experiment.pools import Pool
from sar_train.report.packed import ARCHIVE, unpack

NUMBERS = re.compile(r"\[\n\s+-?\d[\d.e+-]*(,\n\s+-?\d[\d.e+-]*)*\n\s+\]")
"""A list of numbers in indented JSON."""


@dataclass
class Sweep:
    """The outcome of a sweep: result files, and one line for each run that failed."""

    results: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def find_result(job: Job, out: Path, *, any_code: bool = False) -> Path | None:
    """Return the file that holds a run's result, its own or the packed one, None where there is none yet.

    Args:
        job: the run.
        out: the sweep's folder.
        any_code: take a result of the same settings and seed that other code made.

    Raises:
        DataError: the folder's packed file is damaged.
    """
    digest = code.identity()["digest"]
    candidates = [out / job.path(digest)]
    if any_code:
        candidates += sorted((out / job.folder).glob(f"{glob.escape(job.stem)}-*.json"))
    code_digest = None if any_code else digest
    for path in candidates:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if _is_of(content, job, code_digest):
            return path
    packed = (run for run in unpack(out) if run.path.name.startswith(f"{job.stem}-"))
    return out / ARCHIVE if any(_is_of(run.result, job, code_digest) for run in packed) else None


def _is_of(content: Any, job: Job, digest: str | None) -> bool:
    """Say whether a result is of a run, made by the code with this digest, or by any.

    Keys of older code do not cover the photos of a folder; their results have no entry for them.
    """
    try:
        made_by = content["code"]["digest"]
        key = job.key(made_by, with_photos="photos" in content)
        return bool(content["key"] == key) and digest in (None, made_by)
    except (KeyError, TypeError):
        return False


def run_sweep(
    jobs: Sequence[Job],
    out: Path,
    pool: Pool,
    tell: ProgressCallback,
    *,
    any_code: bool = False,
    keep_prompts: bool = False,
) -> Sweep:
    """Execute the runs without a result; one that fails does not stop the others.

    Args:
        jobs: the runs.
        out: gets ``DATASET/RUN-KEY.json`` and ``.toml`` for each run.
        pool: executes the runs (`pools`).
        tell: gets a line for each run.
        any_code: count results of the same settings and seed that other code made.
        keep_prompts: keep each run's folder, from which ``sar-export`` makes a bundle.
    """
    digest, began = code.identity()["digest"], time.monotonic()
    done, todo, unkept = Sweep(), [], 0
    jobs = list({job.path(digest): job for job in jobs}.values())  # no run is executed twice
    for job in jobs:
        path = find_result(job, out, any_code=any_code)
        if path:
            done.results.append(path)
            unkept += not any(p.with_suffix("").is_dir() for p in (path, out / job.path(digest)))
        else:
            todo.append(job)
    if done.results:
        tell(f"{len(done.results)} of {len(jobs)} runs are done already")
    if keep_prompts and unkept:
        prompts = "its prompt" if unkept == 1 else "their prompts"
        tell(f"Warning: {unkept} of these did not keep {prompts}; --keep-prompts with another --out runs them again")
    tasks = []
    for job in todo:
        path = out / job.path(digest)
        write_atomic(path.with_suffix(".toml"), job.toml().encode())
        tasks.append((job, run_folder(path)))
    for count, (job, outcome) in enumerate(pool(tasks), 1):
        label = f"[{count}/{len(todo)}] {job.config.data} {job.stem}"
        if isinstance(outcome, str):
            done.failed.append(f"{job.config.data} {job.stem}: {outcome}")
            tell(f"{label}: FAILED: {outcome}")
            continue
        path = out / job.path(digest)
        folder = run_folder(path)
        if keep_prompts and folder.is_dir():
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            folder.replace(path.with_suffix(""))
        write_atomic(path, as_json(outcome).encode())
        shutil.rmtree(folder, ignore_errors=True)
        done.results.append(path)
        left = (time.monotonic() - began) / count * (len(todo) - count)
        tell(f"{label}: {summary(outcome)} in {sum(outcome['timing'].values()):.0f} s{remaining(left)}")
    return done


def run_folder(result: Path) -> Path:
    """Return the folder of a run's state while it is under way, beside its result."""
    return result.with_name(f".{result.stem}")


def as_json(result: dict[str, Any]) -> str:
    """Return indented JSON, with the numbers of a list on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)  # JSON strings contain no line ends
    return NUMBERS.sub(lambda match: re.sub(r"\n\s+", " ", match[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def summary(result: dict[str, Any]) -> str:
    """Return accuracies in percent in words: on base and new classes, in one ranking over both, and on targets."""
    text = _percent(result["metrics"])
    if in_one := result.get("open"):  # older runs have none
        text += f"; one ranking over base and new: {_percent(in_one['metrics']['images'])}"
    targets = (result["targets"] or {}).items()
    return text + "".join(f", {name} {values['accuracy']:.1f}" for name, values in targets)


def _percent(metrics: Mapping[str, Any]) -> str:
    base, new, both = (metrics[k] for k in ("base_accuracy", "new_accuracy", "harmonic_mean"))
    return f"base {base:.1f} / new {new:.1f} (harmonic mean {both:.1f})" if new is not None else f"{base:.1f}"


def remaining(seconds: float) -> str:
    """Return a text such as ``; about 12 min left``."""
    if seconds < 1:
        return ""
    return f"; about {seconds / 60:.0f} min left" if seconds > 90 else f"; about {seconds:.0f} s left"
