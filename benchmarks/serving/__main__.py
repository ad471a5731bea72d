"""Load on `sar-serve`, beside the engine without a server and beside other servers, in one run on one machine.

    python -m benchmarks.serving [--vit] [--peer-python PYTHON] [--requests 20000]

Loopback; the load generator is a process of its own and shares the cores with the server. Each peer is tried in several
settings first; the best goes on. Then rounds: the loops without a server, ours, the peers, each started anew. Medians
of the rounds, shares of the plain loop of the same round. Writes JSON and a Markdown table.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime
import psutil

from benchmarks import command
from benchmarks.serving import bundles, photos, scenarios, servers, table
from benchmarks.serving.servers import ROOT, Candidate

TRIAL_CLIENTS = (8, 32)


class Bench:
    """One run: its photos, its servers, and how long each measurement takes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.words = photos.make(folder, options.mix, command.SHARED_DATA)
        self.first = min(folder.glob("*.jpg")).read_bytes()
        self.left_out: dict[str, str] = {}
        self.ours = [] if options.no_ours else self._usable([servers.ours(options.server_args.split())])
        self.peers = [] if options.no_peers else self._usable(servers.peers(options.peer_python))

    def model(self, bundle: Path, extras: bool) -> dict[str, Any]:
        """Everything about one bundle."""
        labels = expected(bundle, self.folder)
        trials, chosen = self._try_peers(bundle, labels) if self.options.rounds else ([], [])
        result: dict[str, Any] = {"trials": trials, "rounds": []}
        for number in range(self.options.rounds):
            command.say(f"{bundle.name}: round {number + 1} of {self.options.rounds}")
            result["rounds"].append(self._round(bundle, labels, [*self.ours, *chosen]))
        if extras and self.ours:
            result |= self._extras(bundle)
        return result

    def _round(self, bundle: Path, labels: list[str], candidates: list[Candidate]) -> dict[str, Any]:
        arguments = ("--bundle", bundle, "--photos", self.folder, "--seconds", self.options.seconds / 2)
        raw = command.in_own_process("benchmarks.serving.raw", *arguments)
        result: dict[str, Any] = {"raw": raw, "servers": {}}
        command.say(f"  plain loop {table.best_plain(result['raw']):.1f} images/s")
        for candidate in candidates:
            load = self._load(candidate, bundle, labels, self.options.clients, self.options.seconds)
            result["servers"][candidate.name] = {"setting": candidate.setting, "load": load}
        return result

    def _load(
        self, candidate: Candidate, bundle: Path, labels: list[str], counts: list[int], seconds: float
    ) -> dict[str, Any]:
        loads = {}
        with servers.started(candidate, bundle, self.first) as server:
            for clients in counts:
                load = scenarios.steady(server, self.folder, clients, seconds, min(3.0, seconds / 3), labels)
                loads[str(clients)] = load
                command.say(
                    f"  {candidate.name} ({candidate.setting}) {clients} clients: {load['rate']:.1f} images/s, "
                    f"p50 {load['latency_ms']['p50']:.0f} ms, p99 {load['latency_ms']['p99']:.0f} ms, "
                    f"{load['errors']} errors, {table.cpu_ms(load):.1f} CPU ms an image, "
                    f"others {load['others_cpu'] / load['wall']:.0%}"
                )
        return loads

    def _try_peers(self, bundle: Path, labels: list[str]) -> tuple[list[dict[str, Any]], list[Candidate]]:
        """Try every setting for a short time; return all, and the best of each peer."""
        trials: list[dict[str, Any]] = []
        best: dict[str, tuple[float, Candidate]] = {}
        for candidate in self.peers:
            try:
                load = self._load(candidate, bundle, labels, list(TRIAL_CLIENTS), self.options.seconds / 2)
            except servers.NotStartedError as error:
                self.left_out[f"{candidate.name} ({candidate.setting})"] = str(error)
                continue
            trials.append({"name": candidate.name, "setting": candidate.setting, "load": load})
            rate = sum(one["rate"] for one in load.values())
            best[candidate.name] = max(
                best.get(candidate.name, (0.0, candidate)), (rate, candidate), key=lambda p: p[0]
            )
        return trials, [candidate for _, candidate in best.values()]

    def _extras(self, bundle: Path) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if self.options.requests:
            command.say(f"  memory over {self.options.requests:,} requests")
            with servers.started(self.ours[0], bundle, self.first) as server:
                extras["memory"] = scenarios.memory(server, self.folder, self.options.requests)
        return extras

    def _usable(self, candidates: list[Candidate]) -> list[Candidate]:
        named = {candidate.name: candidate for candidate in candidates}
        reasons = {name: candidate.obstacle() for name, candidate in named.items()}
        missing = {name: why for name, why in reasons.items() if why}
        for name, why in missing.items():
            command.say(f"{name} is left out: {why}")
        self.left_out |= missing
        return [candidate for candidate in candidates if candidate.name not in missing]


def expected(bundle: Path, folder: Path) -> list[str]:
    """Return the best label of each photo, from the library in this process, one photo at a time."""
    from sar_infer.classifier import Classifier

    classifier = Classifier.open(bundle, device="cpu")
    return [classifier.classify(path, top_k=1).label for path in sorted(folder.glob("*.jpg"))]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    options = command.options(
        __doc__,
        bundle=[bundles.MINI],
        vit=(False, "also a ViT-B/32, made if need be (needs torch)"),
        cache=(ROOT / "results" / "serving", "where that one is kept"),
        peer_python=(sys.executable, "interpreter that has LitServe and mosec"),
        no_peers=False,
        no_ours=False,
        server_args=("", "more arguments for sar-serve, in one string"),
        mix=("mixed", f"of {', '.join(photos.MIXES)}"),
        clients=[1, 8, 32],
        seconds=(16.0, "of each measurement"),
        rounds=(3, "0: only memory"),
        requests=(0, "watch memory over so many, 2,000 at least"),
        out=command.RESULTS / "serving.json",
    )
    if 0 < options.requests < 2000:
        sys.exit(f"--requests: memory is read every 1,000 requests, so expected 2,000 or more, got {options.requests}")
    return options


def main() -> None:
    """Measure, write, print the table."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server is left behind
    start = time.time()
    paths = [path.resolve() for path in options.bundle] + ([bundles.vit(options.cache)] if options.vit else [])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder) / "photos")
        models = {path.name: bench.model(path, extras=number == 0) for number, path in enumerate(paths)}
    results = {
        "photos": bench.words,
        "cores": psutil.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
        "minutes": (time.time() - start) / 60,
        "left_out": bench.left_out,
        "models": models,
    }
    command.tell(table.markdown(results), results, options.out)


if __name__ == "__main__":
    main()
