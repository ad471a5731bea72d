"""Bulk runs of ``sar-classify``: rates from file to row, and exactness under ``kill -9``.

    python -m benchmarks.bulk [--bundle DIR DIR] [--photos FOLDER] [--images 2000] [--out benchmarks/results/bulk.json]
    python -m benchmarks.bulk --kills 30

Rates are of whole processes, their start included, over a list that names the photos again and again, and over the same
photos as tar shards and Parquet files; milliseconds an image are CPU time of one thread.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import command

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]


def run(*arguments: str | Path) -> dict[str, Any]:
    """Return the summary of a run into a new folder."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        done = subprocess.run(
            [*COMMAND, *map(str, arguments), "--out", str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode > 1:
            sys.exit(done.stderr)
        summary: dict[str, Any] = json.loads((out / "_SUCCESS.json").read_text())["summary"]
        return summary


def milliseconds(bundle: Path, precision: Any, paths: list[Path]) -> dict[str, float]:
    """Return the CPU time of one thread an image: file to the encoder's input, encoder, ranking."""
    from sar_infer import Classifier
    from sar_infer.images.prefetch import decode_image

    classifier = Classifier.open(bundle, threads=1, precision=precision)
    classifier.start()
    decide, seconds = classifier.decide(classifier.class_set(), 5), {}
    start = time.process_time()
    pixels = [decode_image(path, classifier.bundle.manifest.preprocess) for path in paths]
    seconds["decode"] = time.process_time() - start
    start = time.process_time()
    rows = [classifier.embed_inputs(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    seconds["encode"] = time.process_time() - start
    start = time.process_time()
    for batch in rows:
        list(decide(batch))
    seconds["rank"] = time.process_time() - start
    return {phase: round(1000 * total / len(paths), 3) for phase, total in seconds.items()}


def measure(bundles: list[Path], paths: list[Path], images: int, out: Path | None) -> None:
    """Print rates of every form of every bundle with one process and with one a core."""
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "images": images, "encoders": {}}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        names, files = Path(scratch) / "all.txt", Path(scratch)
        names.write_text("\n".join(str(path) for path in islice(cycle(paths), images)))
        for number in range(4):
            share = list(islice(cycle(paths), number, images, 4))
            with tarfile.open(files / f"{number}.tar", "w") as tar:
                for index, path in enumerate(share):
                    tar.add(path, f"{index:06}{path.suffix}")
            _write_parquet(files / f"{number}.parquet", [path.read_bytes() for path in share])
        for bundle in bundles:
            manifest = json.loads((bundle / "manifest.json").read_text())
            for precision in ("fp32", *manifest["precisions"]):
                encoder = f"{manifest['backbone']} {precision}"
                result = {"milliseconds": milliseconds(bundle, precision, paths[:200]), "rates": {}}
                results["encoders"][encoder] = result
                for workers in sorted({1, results["cores"]}):
                    sources = {"list": names, "tars": files / "{0..3}.tar", "parquet": files / "{0..3}.parquet"}
                    for kind, source in sources.items():
                        arguments = ("--bundle", bundle, "--precision", precision, "--workers", str(workers))
                        rate = result["rates"][f"{kind}, {workers}"] = run(source, *arguments)["rate"]
                        rows.append((encoder, kind, workers, f"{rate:.1f}", *result["milliseconds"].values()))
                        command.say(f"{encoder}, {kind}, {workers} processes: {rate:.1f} images a second")
    heads = ("encoder", "source", "processes", "images a second", "ms to decode", "to encode", "to rank")
    command.tell(command.markdown(heads, rows), results, out)


def kill_often(kills: int, paths: list[Path]) -> None:
    """One run, killed at random points and resumed, against one that nobody disturbed."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        names, outs = Path(scratch) / "all.txt", [Path(scratch) / name for name in ("killed", "undisturbed")]
        names.write_text("\n".join(str(path) for path in islice(cycle(paths), 40 * kills)))
        runs = [[*COMMAND, str(names), "--chunk-size", "16", "--resume", "--out", str(out)] for out in outs]
        for _ in range(kills):
            process = subprocess.Popen(runs[0], stderr=subprocess.DEVNULL)
            time.sleep(1 + 2 * chance.random())
            process.kill()
            process.wait()
        for arguments in runs:
            subprocess.run(arguments, stderr=subprocess.DEVNULL, check=False)
        rows = [[row for part in sorted(out.glob("part-*")) for row in _parquet(part)] for out in outs]
    keys = [row["key"] for row in rows[0]]
    same = keys == [str(path) for path in islice(cycle(paths), 40 * kills)]
    print(f"{kills} kills: {len(keys)} rows, each input once: {same}, same as undisturbed: {rows[0] == rows[1]}")
    sys.exit(not (same and rows[0] == rows[1]))


def _write_parquet(path: Path, images: list[bytes]) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": images}), path, row_group_size=100)


def _parquet(part: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(part).to_pylist()
    return rows


def main() -> None:
    """Measure, or kill."""
    options = command.options(__doc__, bundle=[command.MINI], photos=Path, images=2000, out=Path, kills=int)
    paths = sorted(p for p in (options.photos or command.sample_photos()).iterdir() if p.suffix in (".jpg", ".png"))
    if options.kills:
        kill_often(options.kills, paths)
    else:
        measure(options.bundle, paths, options.images, options.out)


if __name__ == "__main__":
    main()
