"""Photos from file to answer: open_clip in torch against ours in fp32 and INT8, in one run on one machine.

    python -m benchmarks.throughput [--models sar-mini vit-b-32 vit-b-16] [--cores 1 2] [--rounds 3] [--seconds 8]

Every contender runs in fresh processes that may use the cores of the row and no more. Each is tried in several settings
(batches, decoding in processes, a copy on each core, memory format) for a short time; the best goes on. Then rounds in
which the contenders take turns: photos from file to answer, and pixels to embeddings alone. Medians over rounds, with
the lowest and highest; ratios within a round. Beside that what products of matrices reach here, and how far answers
agree. Writes JSON and a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.serving import photos
from benchmarks.throughput import models, settings, table
from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image
from benchmarks.throughput.models import ROOT, Model
from benchmarks.throughput.settings import Setting

OPEN_CLIP = "open_clip"


class Bench:
    """One run over all models: its photos and how long each measurement takes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.photos = folder / "photos"
        self.words = photos.make(self.photos, options.mix, command.SHARED_DATA)

    def model(self, model: Model) -> dict[str, Any]:
        """Everything about one model."""
        contenders = [OPEN_CLIP, *model.precisions]
        ours = flops_per_image(model.bundle / "image_encoder.onnx")
        theirs = flops_of_open_clip(model.backbone, model.pretrained or None)
        flops = {name: theirs if name == OPEN_CLIP else ours for name in contenders}
        result: dict[str, Any] = {"flops": flops, "cores": {}}
        for cores in self.options.cores:
            trials = {name: self._tried(model, name, cores) for name in contenders}
            chosen = {name: max(tried, key=lambda pair: pair[1]["answers"])[0] for name, tried in trials.items()}
            rounds = []
            for number in range(self.options.rounds):
                turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
                rounds.append(
                    {name: self._run(model, name, cores, chosen[name], self.options.seconds) for name in turn}
                )
            result["cores"][str(cores)] = {
                "trials": {name: [(way.words(), rates) for way, rates in pairs] for name, pairs in trials.items()},
                "chosen": {name: setting.words() for name, setting in chosen.items()},
                "rounds": rounds,
            }
        return result | {"agreement": self._agreement(model, contenders)}

    def _tried(self, model: Model, name: str, cores: int) -> list[tuple[Setting, dict[str, float]]]:
        ways = settings.of_open_clip(cores, model.name == "sar-mini") if name == OPEN_CLIP else settings.of_ours(cores)
        return [(way, self._run(model, name, cores, way, self.options.trial_seconds)) for way in ways]

    def _run(self, model: Model, name: str, cores: int, setting: Setting, seconds: float) -> dict[str, float]:
        """Return the rates of all copies together."""
        count = len(list(self.photos.iterdir()))
        environment = os.environ | {
            "SAR_BENCH_CORES": ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores])),
            "OMP_NUM_THREADS": str(cores // setting.processes),
            "OPENBLAS_NUM_THREADS": "1",
        }
        copies = []
        for number in range(setting.processes):
            contender = self._contender(model, name, cores // setting.processes, seconds)
            contender += ["--offset", str(number * count // setting.processes), *setting.arguments()]
            copies.append(_started(contender, environment))
        runs = _finished(copies)
        rates = {key: sum(one[key]["rate"] for one in runs) for key in ("answers", "encode")}
        others = np.mean([one["answers"]["busy"] for one in runs]) - sum(one["answers"]["cpu"] for one in runs)
        rates |= {"mib": sum(one["mib"] for one in runs), "decode_ms": float(np.mean([x["decode_ms"] for x in runs]))}
        rates["others"] = float(others) / runs[0]["answers"]["wall"]
        command.say(
            f"{model.name}, {cores} cores, {name} ({setting.words()}): {rates['answers']:.1f} images/s, "
            f"encoding alone {rates['encode']:.1f}, {rates['mib']:.0f} MiB, others {rates['others']:.0%}"
        )
        return rates

    def _contender(self, model: Model, name: str, threads: int, seconds: float) -> list[str]:
        contender = [sys.executable, "-m", "benchmarks.throughput.contender", "--bundle", str(model.bundle)]
        if name == OPEN_CLIP:
            contender += ["--side", "open_clip", "--backbone", model.backbone]
            contender += ["--pretrained", model.pretrained] if model.pretrained else []
        else:
            contender += ["--side", "ours", "--precision", name]
        return [*contender, "--photos", str(self.photos), "--threads", str(threads), "--seconds", str(seconds)]

    def _agreement(self, model: Model, contenders: list[str]) -> dict[str, dict[str, float]]:
        """Each against the one before it: fp32 against open_clip, smaller forms against fp32."""
        answers = {}
        for name in contenders:
            target = self.folder / f"{model.name}-{name}.npz"
            contender = [*self._contender(model, name, 1, 0.0), "--save", str(target), *Setting("loop", 1).arguments()]
            _finished([_started(contender, os.environ | {"SAR_BENCH_CORES": str(min(os.sched_getaffinity(0)))})])
            answers[name] = np.load(target)
        result = {}
        for name in contenders[1:]:
            first, second = answers[OPEN_CLIP if name == "fp32" else "fp32"], answers[name]
            cosines = np.einsum("ij,ij->i", first["rows"].astype(np.float64), second["rows"])
            result[name] = {
                "top1": float((first["labels"] == second["labels"]).mean()),
                "min_cosine": float(cosines.min()),
                "mean_cosine": float(cosines.mean()),
            }
        return result


def _started(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _finished(copies: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Let all begin at once when the last is ready, and read what they print."""
    for copy in copies:
        if copy.stdout is None or copy.stdout.readline() != "ready\n":
            for other in copies:
                other.kill()
            raise SystemExit(f"{' '.join(map(str, copy.args))} did not start")  # type: ignore[arg-type]
    for copy in copies:
        print(file=copy.stdin, flush=True)
    return [json.loads(copy.communicate()[0]) for copy in copies]


def peaks(cores: list[int]) -> dict[str, dict[str, float]]:
    """Return the rates that products reach on so many cores, with the processor's own kernels."""
    results = {}
    for count in cores:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        environment |= {"OMP_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": str(count)}
        environment["SAR_BENCH_CORES"] = ",".join(map(str, sorted(os.sched_getaffinity(0))[:count]))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.throughput.peak"],
            env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        results[str(count)] = json.loads(done.stdout)
    return results


def arguments() -> argparse.Namespace:
    """Read the command line."""
    return command.options(
        __doc__,
        models=list(models.NAMES),
        cores=[1, 2],
        rounds=3,
        seconds=(8.0, "of each measurement"),
        trial_seconds=(3.0, "of each setting that is tried"),
        mix=("mixed", f"of {', '.join(photos.MIXES)}"),
        cache=(ROOT / "results" / "throughput", "where bundles are kept"),
        int8_photos=(Path, "folder of photos that INT8 forms are made with, if need be"),
        out=command.RESULTS / "throughput.json",
    )


def main() -> None:
    """Measure, write, print the table."""
    options = arguments()
    start = time.time()
    prepared = [models.prepared(name, options.cache, options.int8_photos) for name in options.models]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        results: dict[str, Any] = {
            "photos": bench.words,
            "peaks": peaks(options.cores),
            "models": {},
        }
        for model in prepared:
            results["models"][model.name] = bench.model(model)
            results["minutes"] = (time.time() - start) / 60
            command.save(table.markdown(results), results, options.out)  # a run that is broken off leaves its figures
    print(table.markdown(results))


if __name__ == "__main__":
    main()
