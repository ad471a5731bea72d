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

from benchmarks.serving import photos
from benchmarks.throughput import models, settings, table
from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image
from benchmarks.throughput.models import ROOT, Model
from benchmarks.throughput.settings import Setting

OPEN_CLIP = "open_clip"


class Bench:
    """One run over all models: its photos and how long each measurement takes."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.photos = folder / "photos"
        self.words = photos.make(self.photos, given.mix, ROOT.parent / "shared" / "data")

    def model(self, model: Model) -> dict[str, Any]:
        """Everything about one model."""
        contenders = [OPEN_CLIP, *model.precisions]
        ours = flops_per_image(model.bundle / "image_encoder.onnx")
        theirs = flops_of_open_clip(model.backbone, model.pretrained or None)
        flops = {name: theirs if name == OPEN_CLIP else ours for name in contenders}
        result: dict[str, Any] = {"flops": flops, "cores": {}}
        for cores in self.given.cores:
            trials = {name: self._tried(model, name, cores) for name in contenders}
            chosen = {name: max(found, key=lambda pair: pair[1]["answers"])[0] for name, found in trials.items()}
            rounds = []
            for number in range(self.given.rounds):
                turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
                rounds.append({name: self._run(model, name, cores, chosen[name], self.given.seconds) for name in turn})
            result["cores"][str(cores)] = {
                "trials": {name: [(way.words(), found) for way, found in pairs] for name, pairs in trials.items()},
                "chosen": {name: setting.words() for name, setting in chosen.items()},
                "rounds": rounds,
            }
        return result | {"agreement": self._agreement(model, contenders)}

    def _tried(self, model: Model, name: str, cores: int) -> list[tuple[Setting, dict[str, float]]]:
        ways = settings.of_open_clip(cores, model.name == "sar-mini") if name == OPEN_CLIP else settings.of_ours(cores)
        return [(way, self._run(model, name, cores, way, self.given.trial_seconds)) for way in ways]

    def _run(self, model: Model, name: str, cores: int, setting: Setting, seconds: float) -> dict[str, float]:
        """Rates of all copies together."""
        count = len(list(self.photos.iterdir()))
        environment = os.environ | {
            "SAR_BENCH_CORES": ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores])),
            "OMP_NUM_THREADS": str(cores // setting.processes),
            "OPENBLAS_NUM_THREADS": "1",
        }
        copies = []
        for number in range(setting.processes):
            command = self._command(model, name, cores // setting.processes, seconds)
            command += ["--offset", str(number * count // setting.processes), *setting.arguments()]
            copies.append(_started(command, environment))
        found = _finished(copies)
        rates = {key: sum(one[key]["rate"] for one in found) for key in ("answers", "encode")}
        others = np.mean([one["answers"]["busy"] for one in found]) - sum(one["answers"]["cpu"] for one in found)
        rates |= {"mib": sum(one["mib"] for one in found), "decode_ms": float(np.mean([x["decode_ms"] for x in found]))}
        rates["others"] = float(others) / found[0]["answers"]["wall"]
        say(
            f"{model.name}, {cores} cores, {name} ({setting.words()}): {rates['answers']:.1f} images/s, "
            f"encoding alone {rates['encode']:.1f}, {rates['mib']:.0f} MiB, others {rates['others']:.0%}"
        )
        return rates

    def _command(self, model: Model, name: str, threads: int, seconds: float) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.throughput.contender", "--bundle", str(model.bundle)]
        if name == OPEN_CLIP:
            command += ["--side", "open_clip", "--backbone", model.backbone]
            command += ["--pretrained", model.pretrained] if model.pretrained else []
        else:
            command += ["--side", "ours", "--precision", name]
        return [*command, "--photos", str(self.photos), "--threads", str(threads), "--seconds", str(seconds)]

    def _agreement(self, model: Model, contenders: list[str]) -> dict[str, dict[str, float]]:
        """Each against the one before it: fp32 against open_clip, smaller forms against fp32."""
        answers = {}
        for name in contenders:
            target = self.folder / f"{model.name}-{name}.npz"
            command = [*self._command(model, name, 1, 0.0), "--save", str(target), *Setting("loop", 1).arguments()]
            _finished([_started(command, os.environ | {"SAR_BENCH_CORES": str(min(os.sched_getaffinity(0)))})])
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


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
    """What products reach on so many cores, with the processor's own kernels."""
    found = {}
    for count in cores:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        environment |= {"OMP_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": str(count)}
        environment["SAR_BENCH_CORES"] = ",".join(map(str, sorted(os.sched_getaffinity(0))[:count]))
        command = [sys.executable, "-m", "benchmarks.throughput.peak"]
        printed = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found[str(count)] = json.loads(printed)
    return found


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=models.NAMES, default=list(models.NAMES))
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--trial-seconds", type=float, default=3.0, help="of each setting that is tried")
    parser.add_argument("--mix", choices=photos.MIXES, default="mixed")
    parser.add_argument("--cache", type=Path, default=ROOT / "results" / "throughput", help="where bundles are kept")
    parser.add_argument("--int8-photos", type=Path, help="folder of photos that INT8 forms are made with, if need be")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "throughput.json")
    return parser.parse_args()


def main() -> None:
    """Measure, write, print the table."""
    given = arguments()
    start = time.time()
    prepared = [models.prepared(name, given.cache, given.int8_photos) for name in given.models]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        results: dict[str, Any] = {
            "photos": bench.words,
            "peaks": peaks(given.cores),
            "models": {},
        }
        for model in prepared:
            results["models"][model.name] = bench.model(model)
            results["minutes"] = (time.time() - start) / 60
            write(given.out, results)
    print(table.markdown(results))


def write(out: Path, results: dict[str, Any]) -> None:
    """What there is so far, so that a run that is broken off was not for nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    out.with_suffix(".md").write_text(table.markdown(results), "utf-8")


if __name__ == "__main__":
    main()
