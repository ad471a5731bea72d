"""Load on `sar-serve`, beside the engine without a server and beside other servers, in one run on one machine.

    python -m benchmarks.serving [--vit] [--peer-python PYTHON] [--requests 20000] [--overload 60]

Loopback; the load generator is a process of its own and shares the cores with the server. Each peer is tried in several
settings first; the best goes on. Then rounds: the loops without a server, ours, the peers, each started anew. Medians
of the rounds, shares of the plain loop of the same round. Writes JSON and a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime
import psutil

from benchmarks.serving import bundles, photos, scenarios, servers, table
from benchmarks.serving.servers import ROOT, Candidate

TRIAL_CLIENTS = (8, 32)


class Bench:
    """One run: its photos, its servers, and how long each measurement takes."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.words = photos.make(folder, given.mix, ROOT.parent / "shared" / "data")
        self.first = min(folder.glob("*.jpg")).read_bytes()
        self.left_out: dict[str, str] = {}
        self.ours = [] if given.no_ours else self._usable([servers.ours(given.server_args.split())])
        self.peers = [] if given.no_peers else self._usable(servers.peers(given.peer_python))

    def model(self, bundle: Path, extras: bool) -> dict[str, Any]:
        """Everything about one bundle."""
        labels = expected(bundle, self.folder)
        trials, chosen = self._try_peers(bundle, labels) if self.given.rounds else ([], [])
        result: dict[str, Any] = {"trials": trials, "rounds": []}
        for number in range(self.given.rounds):
            say(f"{bundle.name}: round {number + 1} of {self.given.rounds}")
            result["rounds"].append(self._round(bundle, labels, [*self.ours, *chosen]))
        if extras and self.ours:
            result |= self._extras(bundle, labels)
        return result

    def _round(self, bundle: Path, labels: list[str], candidates: list[Candidate]) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.serving.raw", "--bundle", str(bundle), "--photos"]
        command += [str(self.folder), "--seconds", str(self.given.seconds / 2)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        result: dict[str, Any] = {"raw": json.loads(printed), "servers": {}}
        say(f"  plain loop {table.best_plain(result['raw']):.1f} images/s")
        for candidate in candidates:
            load = self._load(candidate, bundle, labels, self.given.clients, self.given.seconds)
            result["servers"][candidate.name] = {"setting": candidate.setting, "load": load}
        return result

    def _load(
        self, candidate: Candidate, bundle: Path, labels: list[str], counts: list[int], seconds: float
    ) -> dict[str, Any]:
        found = {}
        with servers.started(candidate, bundle, self.first) as server:
            for clients in counts:
                load = scenarios.steady(server, self.folder, clients, seconds, min(3.0, seconds / 3), labels)
                found[str(clients)] = load
                say(
                    f"  {candidate.name} ({candidate.setting}) {clients} clients: {load['rate']:.1f} images/s, "
                    f"p50 {load['latency_ms']['p50']:.0f} ms, p99 {load['latency_ms']['p99']:.0f} ms, "
                    f"{load['errors']} errors, {table.cpu_ms(load):.1f} CPU ms an image, "
                    f"others {load['others_cpu'] / load['wall']:.0%}"
                )
        return found

    def _try_peers(self, bundle: Path, labels: list[str]) -> tuple[list[dict[str, Any]], list[Candidate]]:
        """Every setting for a short time; the best of each peer."""
        trials: list[dict[str, Any]] = []
        best: dict[str, tuple[float, Candidate]] = {}
        for candidate in self.peers:
            try:
                load = self._load(candidate, bundle, labels, list(TRIAL_CLIENTS), self.given.seconds / 2)
            except servers.NotStartedError as error:
                self.left_out[f"{candidate.name} ({candidate.setting})"] = str(error)
                continue
            trials.append({"name": candidate.name, "setting": candidate.setting, "load": load})
            rate = sum(found["rate"] for found in load.values())
            best[candidate.name] = max(
                best.get(candidate.name, (0.0, candidate)), (rate, candidate), key=lambda p: p[0]
            )
        return trials, [candidate for _, candidate in best.values()]

    def _extras(self, bundle: Path, labels: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.given.requests:
            say(f"  memory over {self.given.requests:,} requests")
            with servers.started(self.ours[0], bundle, self.first) as server:
                found["memory"] = scenarios.memory(server, self.folder, self.given.requests)
        if self.given.overload:
            say(f"  overload for {self.given.overload:.0f} s")
            with servers.started(self.ours[0], bundle, self.first) as server:
                found["overload"] = scenarios.overload(server, self.folder, self.given.overload, labels)
        return found

    def _usable(self, candidates: list[Candidate]) -> list[Candidate]:
        named = {candidate.name: candidate for candidate in candidates}
        reasons = {name: candidate.obstacle() for name, candidate in named.items()}
        missing = {name: why for name, why in reasons.items() if why}
        for name, why in missing.items():
            say(f"{name} is left out: {why}")
        self.left_out |= missing
        return [candidate for candidate in candidates if candidate.name not in missing]


def expected(bundle: Path, folder: Path) -> list[str]:
    """The best label of each photo, from the library in this process, one photo at a time."""
    from sar_infer.classifier import Classifier

    classifier = Classifier.open(bundle, device="cpu")
    return [classifier.classify(path, top_k=1)[0].predictions[0].label for path in sorted(folder.glob("*.jpg"))]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", help="default: the shipped one")
    parser.add_argument("--vit", action="store_true", help="also a ViT-B/32, made if need be (needs torch)")
    parser.add_argument("--cache", type=Path, default=ROOT / "results" / "serving", help="where that one is kept")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has LitServe and mosec")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-ours", action="store_true")
    parser.add_argument("--server-args", default="", help="more arguments for sar-serve, in one string")
    parser.add_argument("--mix", choices=photos.MIXES, default="mixed")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=16.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="0: only memory and overload")
    parser.add_argument("--requests", type=int, default=0, help="watch memory over so many, 2,000 at least")
    parser.add_argument("--overload", type=float, default=0.0, help="seconds of 10 times the capacity")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    given = parser.parse_args()
    if 0 < given.requests < 2000:
        parser.error(
            f"--requests: memory is read every 1,000 requests, so expected 2,000 or more, got {given.requests}"
        )
    return given


def main() -> None:
    """Measure, write, print the table."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server is left behind
    start = time.time()
    paths = [path.resolve() for path in given.bundle or [bundles.MINI]] + (
        [bundles.vit(given.cache)] if given.vit else []
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder) / "photos")
        models = {path.name: bench.model(path, extras=number == 0) for number, path in enumerate(paths)}
    results = {
        "photos": bench.words,
        "cores": psutil.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
        "minutes": (time.time() - start) / 60,
        "left_out": bench.left_out,
        "models": models,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1, allow_nan=True) + "\n", "utf-8")
    page = table.markdown(results)
    given.out.with_suffix(".md").write_text(page, "utf-8")
    print(page)


if __name__ == "__main__":
    main()
