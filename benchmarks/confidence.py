"""Measure how far scores of trained prompts can be trusted: calibration, coverage of sets, and unknown classes found.

    python -m benchmarks.confidence [--methods coop kgcoop tcp] [--seeds 1 2 3] [--shots 16] [--out FILE.json]

Base-to-new on the features that ship (Caltech101, CoOp's split), or with ``--data NAME --data-root FOLDER`` on photos.
Each run is fitted on validation photos of the base classes, as ``sar-train`` does for every run, and measured on test
photos: base classes for error, likelihood and sets; test photos of the new classes are the unknown ones, scored against
the base names. ``background``: the best base score where 300 nouns that are neither base, new nor novel names take part
in the softmax. Accuracy figures, so nothing depends on how busy the machine is. Writes JSON, and
the table beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from benchmarks import command

SETTINGS = command.ROOT / "experiments" / "kl.toml"
"""Of SAR, by method."""
COVERAGES = ("0.8", "0.9", "0.95")


def measure(config: Any, out: Path) -> dict[str, Any]:
    """Return what the record of a run says, with the AUROC that background names give."""
    from sar_train.training import trainer
    from sar_train.training.context import prepare
    from sar_train.training.prompted import restore

    run = trainer.run(config, out)
    fitted = run.record["calibration"]
    context = prepare(config)
    return {
        "method": config.method,
        "sar": config.sar,
        "seed": config.seed,
        "accuracy": run.record["metrics"]["base_accuracy"],
        "temperature": fitted["temperature"],
        **fitted["measured"],
        "background_auroc": background_auroc(context, restore(run, context.backbone), fitted["temperature"]),
    }


def background_auroc(context: Any, prompted: Any, temperature: float) -> float:
    """Return how well the best base score, beside nouns that nobody asks for, tells base test photos from new ones."""
    from sar_infer.classifiers.scores import auroc, softmax
    from sar_train.evaluation.relations import held_out_names

    base, new = context.task.base, context.task.new
    nouns = held_out_names([*base.class_names, *new.class_names, *(context.novel.names if context.novel else ())])

    def best(features: Any) -> Any:
        logits = prompted.logits(features, [*base.class_names, *nouns]).double().numpy()
        return softmax(logits / temperature)[:, : len(base.class_names)].max(axis=1)

    return auroc(best(base.features), best(new.features))


def table(runs: list[dict[str, Any]]) -> str:
    """Return means over seeds, a row a method."""
    heads = ["method", "accuracy", "T", "error, before → after", "NLL, before → after"]
    heads += [f"{float(c):.0%}: covered, classes" for c in COVERAGES] + ["AUROC: score, energy, background"]
    rows = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["method"] + (" + SAR" if run["sar"] else ""), []).append(run)
    for name, group in sorted(groups.items()):

        def mean(*path: str, group: list[dict[str, Any]] = group) -> float:
            values = [run[path[0]] if len(path) == 1 else run[path[0]][path[1]] for run in group]
            return float(statistics.mean(values))

        cells = [name, f"{mean('accuracy'):.1f} %", f"{mean('temperature'):.2f}"]
        cells.append(f"{mean('error_before'):.1%} → {mean('error_after'):.1%}")
        cells.append(f"{mean('nll_before'):.3f} → {mean('nll_after'):.3f}")
        cells += [f"{mean('coverage', c):.1%}, {mean('set_size', c):.2f}" for c in COVERAGES]
        kinds = (mean("unknown_auroc", "score"), mean("unknown_auroc", "energy"), mean("background_auroc"))
        cells.append(", ".join(f"{value:.3f}" for value in kinds))
        rows.append(cells)
    return command.markdown(heads, rows)


def main() -> None:
    """Train, measure and write after each run."""
    options = command.options(
        __doc__,
        data="demo",
        data_root=str,
        methods=["coop", "kgcoop", "tcp"],
        seeds=[1, 2, 3],
        shots=16,
        epochs=int,
        out=command.RESULTS / "confidence.json",
    )
    from sar_train.config.run import RunConfig

    sections = tomllib.loads(SETTINGS.read_text("utf-8"))["methods"]
    jobs = [(seed, method, sar) for seed in options.seeds for method in options.methods for sar in (False, True)]
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (seed, method, sar) in enumerate(jobs, 1):
            command.say(f"{number}/{len(jobs)}: {method}{' + SAR' if sar else ''}, seed {seed}")
            config = RunConfig(
                data=options.data,
                data_root=options.data_root,
                method=method,
                sar=sar,
                shots=options.shots,
                seed=seed,
                epochs=options.epochs,
                sections=sections.get(method, {}) if sar else {},
            )
            runs.append(measure(config, Path(scratch) / str(number)))
            command.save(table(runs), runs, options.out)
    command.tell(table(runs))


if __name__ == "__main__":
    main()
