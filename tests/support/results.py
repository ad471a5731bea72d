"""Result files as `sar-experiment` writes them, with values of a test's choice."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sar_train.report.formats import Table
from sar_train.report.results import ARCHIVE, loose_files, read
from sar_train.report.tables import all_tables

SCHEDULE = {"epochs": 10, "learning_rate": 0.02, "batch_size": 32, "optimiser": "sgd"}


def result(
    name: str = "coop",
    *,
    seed: int = 1,
    base: float = 80.0,
    new: float | None = 60.0,
    dataset: str = "caltech101",
    shots: int = 16,
    protocol: str = "base-to-new",
    zero_shot: tuple[float, float | None] = (60.0, 58.0),
    relations: tuple[float | None, float | None] = (1.0, 0.5),
    open_: tuple[float, float] | None = None,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The content of a file; ``settings`` are of the config and of ``sar``, ``changes`` replace whole values.

    ``open_`` is open base and open new accuracy; zero-shot's are 50 and 40 then.
    """
    sar = "+sar" in name
    config = {"method": name.removesuffix("+sar").partition(":")[0], "sar": sar, "shots": shots, "seed": seed}
    config |= {"backbone": "sar-mini", "pretrained": None, "data": dataset, "schedule": dict(SCHEDULE)}
    of_sar = {"weight": 0.3, "tau": 0.1} if sar else {}
    for key, value in (settings or {}).items():
        if key in SCHEDULE:
            config["schedule"][key] = value
        elif key in ("weight", "tau"):
            of_sar[key] = value
        else:
            config[key] = value
    content = {
        "schema_version": 1,
        "protocol": protocol,
        "name": name,
        "key": "0" * 16,
        "code": {"version": "0.1.0", "digest": "c0de"},
        "config": config,
        "settings": {config["method"]: {"n_ctx": 4}} | ({"sar": of_sar} if sar else {}),
        "seed": seed,
        "backbone": {"name": "sar-mini", "weights_digest": "ab12"},
        "dataset": {"name": dataset, "classes": ["a", "b"], "photos": 32, "judged_on": "test"},
        "metrics": accuracies(base, new),
        "zero_shot": accuracies(*zero_shot),
        "open": open_
        and {"metrics": open_measures(*open_), "zero_shot": open_measures(50.0, 40.0), "other_metrics": {}},
        "other_metrics": {},
        "linear_probe": {"base_accuracy": 90.0 + seed},
        "relations": {"names": 300, "before": relations[0], "after": relations[1]},
        "novel": {"source": "wordnet", "count": 400, "overlap": seed} if sar else None,
        "history": [{"epoch": e, "learning_rate": 0.1, "cross_entropy": 1 / e} for e in (1, 2, 3)],
        "timing": {"prepare_seconds": 1.0, "train_seconds": 30.0 if sar else 20.0, "evaluate_seconds": 1.0},
        "peak_memory_mib": 650.0 if sar else 600.0,
        "versions": {"python": "3.11.7", "torch": "2.8.0"},
        "targets": None,
        "similarities": None,
        "zero_shot_check": None,
    }
    return content | changes


def accuracies(base: float, new: float | None) -> dict[str, float | None]:
    """As in ``metrics``."""
    both = None if new is None else 2 * base * new / (base + new)
    return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": both}


def open_measures(base: float, new: float) -> dict[str, Any]:
    """As in ``open.metrics``; per class everything is one point higher."""

    def measures(base: float, new: float) -> dict[str, Any]:
        curve = {"base": [base + 5, base, 0.0], "new": [0.0, new, new + 5]}
        areas = {"auroc": 0.9, "openworld_auc": base * new / 1e4, "ausuc": 0.6}
        return {**accuracies(base, new), "accuracy": (base + new) / 2, **areas, "curve": curve}

    return {"images": measures(base, new), "per_class": measures(base + 1, new + 1)}


def write(folder: Path, content: dict[str, Any], *, name: str | None = None) -> Path:
    """Write a result, under a name made of its values unless one is given."""
    named = f"{content['protocol']}-{content['name']}-{content['dataset']['name']}-{content['config']['shots']}"
    path = folder / (name or f"{named}-s{content['seed']}.json".replace("/", "-").replace(":", "-"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pack(folder: Path) -> None:
    """Replace the results below a folder by a packed file."""
    lines = []
    for path in loose_files(folder):
        toml = path.with_suffix(".toml")
        text = toml.read_text(encoding="utf-8") if toml.exists() else None
        run = {"path": path.relative_to(folder).as_posix(), "result": json.loads(path.read_text(encoding="utf-8"))}
        lines.append(json.dumps(run | {"toml": text}) + "\n")
        path.unlink()
    (folder / ARCHIVE).write_bytes(lzma.compress("".join(lines).encode()))


def similarity(names: Sequence[str], base: int, handcrafted: np.ndarray, learned: np.ndarray) -> dict[str, Any]:
    """``similarities`` of (C, C) matrices."""
    upper = np.triu_indices(len(names), 1)
    as_integers = {
        key: [int(v) for v in (1000 * matrix[upper]).round()]
        for key, matrix in (("handcrafted", handcrafted), ("learned", learned))
    }
    return {"names": list(names), "base": base, **as_integers}


def blocks(sizes: Sequence[int], *, inside: float = 0.9, outside: float = 0.1) -> np.ndarray:
    """(C, C) cosines of names in groups."""
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    cosines = np.where(kinds[:, None] == kinds[None], inside, outside)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def sample(folder: Path) -> None:
    """Every kind of result once: base-to-new with similarities, few-shot, targets, a sweep."""
    names = [f"name {i} & <b>" for i in range(12)]
    hand = blocks([4, 4, 4])
    for sar, moved in ((False, 0.5), (True, 0.2)):
        learned = hand.copy()
        learned[0, 1] = learned[1, 0] = hand[0, 1] - moved
        name, gain = ("coop+sar", 3) if sar else ("coop", 0)
        for seed in (1, 2):
            alike = similarity(names, 6, hand, learned)
            accuracies_of = {"base": 80.0 - gain, "new": 50.0 + gain + seed, "open_": (70.0, 40.0)}
            write(folder / "b2n", result(name, seed=seed, similarities=alike, **accuracies_of))
        for shots in (1, 4):
            few = {"protocol": "few-shot", "new": None, "zero_shot": (60.0, None)}
            write(folder, result(name, shots=shots, base=60.0 + shots, **few))
        targets = {t: {"accuracy": 50.0, "zero_shot": 49.0, "classes": 3, "photos": 9} for t in ("dtd", "pacs/art")}
        write(folder, result(name, protocol="cross-dataset", new=None, dataset="imagenet", targets=targets))
    for weight in (0.1, 0.3):
        write(folder / "sweep", result(f"w{weight}", protocol="custom", settings={"sar": True, "novel_count": weight}))


def tables(folder: Path, *sections: str) -> list[Table]:
    """Return the tables of a folder's results, all or those of some sections of the report."""
    return [table for table in all_tables(read(folder)) if not sections or table.section in sections]
