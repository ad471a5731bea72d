"""Common code of the benchmarks: one command line, one way to print a table and one to write results.

A benchmark is a module with ``main``, run as ``python -m benchmarks.NAME`` in the repository's root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "exports" / "mini"
RESULTS = ROOT / "benchmarks" / "results"
SHARED_DATA = ROOT.parent / "shared" / "data"


def options(description: str | None, /, **named: Any) -> argparse.Namespace:
    """Read the command line.

    Args:
        description: a module's docstring, which ``--help`` shows.
        named: each option's default, or a pair of it and a line of help. Values are of the default's type; a list takes
            one or several values, False is a switch, and a type stands for no default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, entry in named.items():
        default, text = entry if isinstance(entry, tuple) else (entry, None)
        if default is False:
            arguments: dict[str, Any] = {"action": "store_true"}
        elif isinstance(default, type):
            arguments = {"type": default}
        elif isinstance(default, list):
            arguments = {"type": type(default[0]), "nargs": "+", "default": default}
        else:
            arguments = {"type": Path if isinstance(default, Path) else type(default), "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, **arguments)
    return parser.parse_args()


def say(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def tell(text: str, results: Any = None, out: Path | None = None) -> None:
    """Print a report in Markdown; save it where ``out`` is given, else print its figures, if any, as JSON below it."""
    print(text)
    if out is not None:
        save(text, results, out)
    elif results is not None:
        print(json.dumps(results, default=str))


def save(text: str, results: Any, out: Path) -> None:
    """Write a report as Markdown, and its figures, if any, as JSON beside it; the suffix of ``out`` does not count."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")
    if results is not None:
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def end(faults: Sequence[str], most: int = 100) -> NoReturn:
    """Print what was found wrong and leave, with status 1 if there is anything."""
    for fault in faults[:most]:
        print("FAULT", fault)
    sys.exit(bool(faults))


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return each way's value in each round but a first; a drifting machine slows all alike."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            values[name].append(way())
    return {name: column[1:] for name, column in values.items()}


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def in_own_process(module: str, *arguments: object, environment: Mapping[str, str] | None = None) -> Any:
    """Run ``python -m MODULE ARGUMENTS`` in the repository's root and return the JSON that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=variables)
    return json.loads(done.stdout)


def sample_photos() -> Path:
    """Return a folder of photos: ImageNet's sample if it is here, otherwise those that come with scikit-image."""
    if (sample := SHARED_DATA / "imagenet_sample").is_dir():
        return sample
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        sys.exit("--photos FOLDER is needed: scikit-image is not installed")
    return Path(spec.origin).parent / "data"
