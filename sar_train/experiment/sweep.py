"""Sweeps: runs with a result are skipped, the others executed, and each result is a file of its own."""

from __future__ import annotations

import glob
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sar_train.data.files import write_atomic
from sar_train.data.opening import missing
from sar_train.data.progress import ProgressCallback
from sar_train.errors import ConfigError, DataError
from sar_train.experiment import code
from sar_train.experiment.job import Job
from sar_train.experiment.pools import Pool
from sar_train.novel_names.source import SourceOptions, open_novel_source
from sar_train.report.results import ARCHIVE, unpack
from sar_train.training.record import in_words


@dataclass
class Sweep:
    """The outcome of a sweep: result files, and one line for each run that failed."""

    results: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def check_inputs(jobs: Sequence[Job]) -> None:
    """Check datasets, targets and sources of auxiliary names; no image is read.

    Raises:
        DataError: some cannot be used; the message names all of these.
    """
    names = dict.fromkeys((name, job.config.data_root) for job in jobs for name in (job.config.data, *job.targets))
    messages = {name: missing(name, Path(root) if root else None) for name, root in names}
    configs = (job.config for job in jobs if job.config.sar)
    for novel, url, model in dict.fromkeys((one.novel, one.llm_url, one.llm_model) for one in configs):
        try:
            open_novel_source(novel, SourceOptions(llm_url=url, llm_model=model))
        except ConfigError as error:
            messages[f"novel={novel}"] = str(error)
    if messages := {name: message for name, message in messages.items() if message}:
        every = f"{len(messages)} inputs cannot be used: {', '.join(messages)}; the first: " * (len(messages) > 1)
        raise DataError(every + next(iter(messages.values())))


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
    for path in candidates:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if _is_of(content, job, None if any_code else digest):
            return path
    packed = (run for run in unpack(out) if run.path.name.startswith(f"{job.stem}-"))
    return out / ARCHIVE if any(_is_of(run.result, job, None if any_code else digest) for run in packed) else None


def _is_of(content: Any, job: Job, digest: str | None) -> bool:
    """Return True for a result of a run, made by the code with this digest, or by any."""
    try:
        made_by = content["code"]["digest"]
        return bool(content["key"] == job.key(made_by)) and digest in (None, made_by)
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

    The first run of each dataset is executed before all others, so that its images are encoded once for all of them,
    and so that a mistake in the set-up stops the sweep early.

    Args:
        jobs: the runs.
        out: gets ``DATASET/RUN-KEY.json`` and ``.toml`` for each run.
        pool: executes the runs (`pools`).
        tell: gets a line for each run.
        any_code: count results of the same settings and seed that other code made.
        keep_prompts: keep each run's folder, from which ``sar-export`` makes a bundle.

    Raises:
        DataError: in the first run of a dataset, zero-shot was below the known accuracy.
    """
    digest, began = code.identity()["digest"], time.monotonic()
    done, todo = Sweep(), []
    jobs = list({job.path(digest): job for job in jobs}.values())  # no run is executed twice
    begun = set()
    for job in jobs:
        path = find_result(job, out, any_code=any_code)
        if path:
            done.results.append(path)
            begun.add(job.config.data)
        else:
            todo.append(job)
    if done.results:
        tell(f"{len(done.results)} of {len(jobs)} runs are done already")
    first = list({job.config.data: job for job in reversed(todo) if job.config.data not in begun}.values())[::-1]
    count, wrong = 0, list[str]()
    for group in (first, [job for job in todo if job not in first]):
        tasks = []
        for job in group:
            path = out / job.path(digest)
            write_atomic(path.with_suffix(".toml"), job.toml().encode())
            tasks.append((job, run_folder(path)))
        for job, outcome in pool(tasks) if tasks else ():
            count += 1
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
            write_atomic(path, (json.dumps(outcome, ensure_ascii=False) + "\n").encode())
            shutil.rmtree(folder, ignore_errors=True)
            done.results.append(path)
            left = (time.monotonic() - began) / count * (len(todo) - count)
            about = f"; about {left / 60:.0f} min left" if left > 90 else f"; about {left:.0f} s left" * (left >= 1)
            tell(f"{label}: {summary(outcome)} in {sum(outcome['timing'].values()):.0f} s{about}")
            check = outcome["zero_shot_check"]
            if check and not check["ok"]:
                wrong.append(f"zero-shot on {job.config.data} is {-check['difference']:.2f} points too low")
        if wrong and group is first:
            raise DataError(
                f"{'; '.join(wrong)}: class names, template, photos or weights differ from those of the known "
                "accuracy. Run the command again to continue anyway"
            )
    return done


def run_folder(result: Path) -> Path:
    """Return the folder of a run's state during training, next to its result."""
    return result.with_name(f".{result.stem}")


def summary(result: dict[str, Any]) -> str:
    """Return accuracies in words: on base and new classes, over both jointly, and on targets."""
    jointly = result.get("open")
    text = in_words(result["metrics"], jointly and jointly["metrics"]["images"])
    return text + "".join(f", {name} {of['accuracy']:.1f} %" for name, of in (result["targets"] or {}).items())
