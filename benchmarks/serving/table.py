"""Results as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import command


def markdown(results: dict[str, Any]) -> str:
    """Return the whole page."""
    paragraphs = [f"Photos: {results['photos']}. {results['cores']} cores, onnxruntime {results['onnxruntime']}."]
    for name, model in results["models"].items():
        paragraphs.append(f"### {name}")
        if model["rounds"]:
            paragraphs += [_raw(model["rounds"]), _servers(model["rounds"])]
        if model["trials"]:
            paragraphs += [
                "Peers' settings, tried once each; the best at 8 and 32 clients together went on:",
                _trials(model["trials"]),
            ]
        if "memory" in model:
            paragraphs.append(_memory(model["memory"]))
    paragraphs += [f"Left out: {name}: {why}." for name, why in results["left_out"].items()]
    return "\n\n".join(paragraphs)


def best(raw: dict[str, dict[str, dict[str, float]]], *names: str) -> float:
    """Return images per second of the best of these loops, of all batches."""
    return max(loop["rate"] for name in names for loop in raw[name].values())


def best_plain(raw: dict[str, Any]) -> float:
    """Return images per second of the best plain loop, ours or by hand."""
    return best(raw, "plain", "pillow")


def cpu_ms(load: dict[str, Any]) -> float:
    """Return the milliseconds of CPU that the server spent on an image."""
    return float(1000 * load["server_cpu"] / max(1, load["images"]))


def _raw(rounds: list[dict[str, Any]]) -> str:
    rows = []
    for name, batches in rounds[0]["raw"].items():
        for batch in batches:
            rate, cpu = (_median(r["raw"][name][batch][key] for r in rounds) for key in ("rate", "cpu_ms"))
            rows.append((name, batch, f"{rate:.1f}", f"{cpu:.1f}"))
    return command.markdown(("loop without a server", "batch", "images/s", "CPU ms an image"), rows)


HEADS = (
    "server", "setting", "clients", "images/s", "client's CPU taken off", "of the plain loop", "of the parallel loops",
    "p50 ms", "p95", "p99", "errors", "astray", "CPU ms an image", "MiB (PSS)", "others' CPU",
)  # fmt: skip


def _servers(rounds: list[dict[str, Any]]) -> str:
    rows = []
    for name, server in rounds[0]["servers"].items():
        for clients in server["load"]:
            runs = [(one["raw"], one["servers"][name]["load"][clients]) for one in rounds]
            rows.append((name, server["setting"], clients, *_cells(runs)))
    return command.markdown(HEADS, rows)


def _cells(runs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    loads = [load for _, load in runs]
    bound = [load["rate"] / best(raw, "parallel") for raw, load in runs]
    return [
        f"{_median(load['rate'] for load in loads):.1f}",
        f"{_median(load['rate_without_client'] for load in loads):.1f}",
        f"{_median(load['rate'] / best_plain(raw) for raw, load in runs):.0%}",
        f"{_median(bound):.0%}",
        *(f"{_median(load['latency_ms'][share] for load in loads):.0f}" for share in ("p50", "p95", "p99")),
        str(sum(load["errors"] for load in loads)),
        f"{sum(load['astray'] for load in loads)} of {sum(load['checked'] for load in loads)}",
        f"{_median(cpu_ms(load) for load in loads):.1f}",
        f"{_median(load['memory']['pss'] for load in loads):.0f}",
        f"{max(0.0, _median(load['others_cpu'] / load['wall'] for load in loads)):.0%}",
    ]


def _trials(trials: list[dict[str, Any]]) -> str:
    rows = []
    for trial in trials:
        for clients, load in trial["load"].items():
            p50, p99 = (f"{load['latency_ms'][share]:.0f}" for share in ("p50", "p99"))
            rows.append((trial["name"], trial["setting"], clients, f"{load['rate']:.1f}", p50, p99))
    return command.markdown(("peer", "setting", "clients", "images/s", "p50 ms", "p99"), rows)


def _memory(measured: dict[str, Any]) -> str:
    first, settled, last = (f"{measured[key]:.1f}" for key in ("first", "settled", "last"))
    requests = f"{measured['requests']:,} requests of {measured['clients']} clients"
    return (
        f"Memory over {requests} ({_statuses(measured['statuses'])}): "
        f"{first} MiB before, {settled} after a fifth, {last} at the end; "
        f"slope from there {measured['slope_mib_per_1000']:+.3f} MiB per 1,000 requests."
    )


def _statuses(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))


def _median(values: Any) -> float:
    return float(statistics.median(list(values)))
