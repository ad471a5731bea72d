"""The price of runs on this machine, from a few photos and steps of each kind of run: time, encoded views, disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sar_train.data.cache import KEY_BYTES
from sar_train.data.progress import ProgressCallback
from sar_train.experiment.job import Job
from sar_train.training.context import outline
from sar_train.training.preview import try_out

RESULT_BYTES = 60_000
"""Size of a result with similarities among its names, as of those in ``experiments/results``."""
SHARED = ("data", "backbone", "pretrained", "shots", "views", "allow_missing", "skip_unreadable", "exclude")
"""Settings of runs that have backbone and data in common."""


def price(jobs: Sequence[Job], tell: ProgressCallback = lambda text: None) -> dict[str, Any]:
    """Return what runs cost here, one at a time; runs that differ in the seed cost the same.

    Nothing is written. Features in a cache and the time of loading and of the class model are not considered.

    Args:
        jobs: the runs.
        tell: gets a line for each kind of run.

    Returns:
        ``methods``, ``runs`` and ``seconds`` of training by method; ``views`` of photos that are encoded, once for all
        methods, and the ``encoding`` seconds; bytes of ``features`` and ``results``; ``seconds`` of all.

    Raises:
        SarTrainError: settings, backbone or data cannot be used.
    """
    of_data: dict[str, dict[str, list[Job]]] = {}
    for job in jobs:
        kinds = of_data.setdefault(repr([getattr(job.config, name) for name in SHARED]), {})
        kinds.setdefault(repr(dataclasses.replace(job.config, seed=0)), []).append(job)
    methods: dict[str, dict[str, Any]] = {}
    all_views, encoding, features, number = 0, 0.0, 0, 0
    for kinds in of_data.values():
        run, per_photo, views = None, None, 0
        for same in kinds.values():
            job, number = same[0], number + 1
            tell(f"timing {number}/{sum(map(len, of_data.values()))} {job.config.data} {job.stem}")
            run = outline(dataclasses.replace(job.config, cache_dir=None), like=run)
            _, expected = try_out(run, per_photo=per_photo, for_tables=True)
            if expected["photos"]:
                per_photo = expected["encoding"] / expected["photos"]
                learned = len(run.learned_rows) * (1 if run.image_prompts else job.config.views)
                views = max(views, learned * len({one.config.seed for one in same}) + expected["photos"] - learned)
            of_method = methods.setdefault(job.name, {"runs": 0, "seconds": 0.0})
            of_method["runs"] += len(same)
            of_method["seconds"] += len(same) * (expected["halves"] + expected["training"] + expected["evaluating"])
        all_views, encoding = all_views + views, encoding + views * (per_photo or 0.0)
        features += views * (KEY_BYTES + 4 * run.backbone.embed_dim) if run else 0
    return {
        "methods": methods,
        "views": all_views,
        "encoding": encoding,
        "features": features,
        "results": RESULT_BYTES * len(jobs),
        "seconds": encoding + sum(one["seconds"] for one in methods.values()),
    }
