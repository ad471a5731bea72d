"""How far the scores of trained prompts can be trusted: calibration, coverage of sets, and unknown classes found.

    python benchmarks/confidence.py [--methods coop kgcoop tcp] [--seeds 1 2 3] [--shots 16] [--out benchmarks/results]

Base-to-new on the features that ship (Caltech101, CoOp's split), or with ``--data NAME --data-root FOLDER`` on photos.
Each run is fitted on validation photos of the base classes, as ``sar-train`` does for every run, and measured on test
photos: base classes for error, likelihood and sets; test photos of the new classes are the unknown ones, scored against
the base names. ``background``: the best base score where 300 nouns that are neither base, new nor novel names take part
in the softmax. Accuracy figures, so nothing depends on how busy the machine is. Writes ``confidence.md`` and
``confidence.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

CHOSEN = Path(__file__).parent.parent / "experiments" / "kl.toml"
COVERAGES = ("0.8", "0.9", "0.95")


def measure(config: Any, out: Path) -> dict[str, Any]:
    """What the record of one run says, with the accuracy and the AUROC that background names give."""
    from sar_train.training import trainer
    from sar_train.training.context import prepare
    from sar_train.training.prompted import restore

    run = trainer.run(config, out)
    fitted = run.record["calibration"]
    context = prepare(config)
    found = background_auroc(context, restore(run, context.backbone), fitted["temperature"])
    return {
        "method": config.method,
        "sar": config.sar,
        "seed": config.seed,
        "accuracy": run.record["metrics"]["base_accuracy"],
        "temperature": fitted["temperature"],
        **fitted["measured"],
        "background_auroc": found,
    }


def background_auroc(context: Any, prompted: Any, temperature: float) -> float:
    """Known and unknown test photos told apart by the best base score, beside nouns that nobody asks for."""
    from sar_infer.classify.calibration import auroc, softmax
    from sar_train.evaluation.relations import held_out_names

    base, new = context.task.base, context.task.new
    nouns = held_out_names([*base.class_names, *new.class_names, *(context.novel.names if context.novel else ())])

    def best(features: Any) -> Any:
        logits = prompted.logits(features, [*base.class_names, *nouns]).double().numpy()
        return softmax(logits / temperature)[:, : len(base.class_names)].max(axis=1)

    return auroc(best(base.features), best(new.features))


def table(runs: list[dict[str, Any]]) -> str:
    """Means over seeds, a row a method."""
    heads = ["method", "accuracy", "T", "error, before → after", "NLL, before → after"]
    heads += [f"{float(c):.0%}: covered, classes" for c in COVERAGES] + ["AUROC: score, energy, background"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["method"] + (" + SAR" if run["sar"] else ""), []).append(run)
    for name, group in sorted(groups.items()):

        def mean(*path: str, group: list[dict[str, Any]] = group) -> float:
            values = [run[path[0]] if len(path) == 1 else run[path[0]][path[1]] for run in group]
            return statistics.mean(values)

        cells = [name, f"{mean('accuracy'):.1f} %", f"{mean('temperature'):.2f}"]
        cells.append(f"{mean('error_before'):.1%} → {mean('error_after'):.1%}")
        cells.append(f"{mean('nll_before'):.3f} → {mean('nll_after'):.3f}")
        cells += [f"{mean('coverage', c):.1%}, {mean('set_size', c):.2f}" for c in COVERAGES]
        kinds = (mean("unknown_auroc", "score"), mean("unknown_auroc", "energy"), mean("background_auroc"))
        cells.append(", ".join(f"{value:.3f}" for value in kinds))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, measure, print the table and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--data-root")
    parser.add_argument("--methods", nargs="+", default=["coop", "kgcoop", "tcp"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    from sar_train.config.run import RunConfig

    chosen = tomllib.loads(CHOSEN.read_text("utf-8"))["methods"]
    jobs = [(seed, method, sar) for seed in given.seeds for method in given.methods for sar in (False, True)]
    given.out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (seed, method, sar) in enumerate(jobs, 1):
            print(f"{number}/{len(jobs)}: {method}{' + SAR' if sar else ''}, seed {seed}", file=sys.stderr)
            config = RunConfig(
                data=given.data,
                data_root=given.data_root,
                method=method,
                sar=sar,
                shots=given.shots,
                seed=seed,
                epochs=given.epochs,
                sections=chosen.get(method, {}) if sar else {},
            )
            runs.append(measure(config, Path(scratch) / str(number)))
            (given.out / "confidence.json").write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
            (given.out / "confidence.md").write_text(table(runs), "utf-8")
    print(table(runs), end="")


if __name__ == "__main__":
    main()
