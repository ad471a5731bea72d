"""Results as Markdown."""

from __future__ import annotations

import statistics
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """The whole page."""
    parts = [f"Photos: {results['photos']}. {results['cores']} cores, onnxruntime {results['onnxruntime']}."]
    for name, model in results["models"].items():
        parts.append(f"### {name}")
        if model["rounds"]:
            parts += [_raw(model["rounds"]), _servers(model["rounds"])]
        if model["trials"]:
            parts += [
                "Peers' settings, tried once each; the best at 8 and 32 clients together went on:",
                _trials(model["trials"]),
            ]
        if "memory" in model:
            parts.append(_memory(model["memory"]))
        if "overload" in model:
            parts.append(_overload(model["overload"]))
    parts += [f"Left out: {name}: {why}." for name, why in results["left_out"].items()]
    return "\n\n".join(parts) + "\n"


def best(raw: dict[str, dict[str, dict[str, float]]], *names: str) -> float:
    """Images per second of the best of these loops, of all batches."""
    return max(found["rate"] for name in names for found in raw[name].values())


def best_plain(raw: dict[str, Any]) -> float:
    """Images per second of the best plain loop, ours or by hand."""
    return best(raw, "plain", "pillow")


def cpu_ms(load: dict[str, Any]) -> float:
    """Milliseconds of CPU that the server spent on an image."""
    return float(1000 * load["server_cpu"] / max(1, load["images"]))


def _raw(rounds: list[dict[str, Any]]) -> str:
    rows = ["| loop without a server | batch | images/s | CPU ms an image |", "|---|---|---|---|"]
    for name, batches in rounds[0]["raw"].items():
        for batch in batches:
            rate, cpu = (_median(r["raw"][name][batch][key] for r in rounds) for key in ("rate", "cpu_ms"))
            rows.append(f"| {name} | {batch} | {rate:.1f} | {cpu:.1f} |")
    return "\n".join(rows)


def _servers(rounds: list[dict[str, Any]]) -> str:
    rows = [
        "| server | setting | clients | images/s | client's CPU taken off | of the plain loop | of the parallel loops "
        "| p50 ms | p95 | p99 | errors | astray | CPU ms an image | MiB (PSS) | others' CPU |",
        "|" + "---|" * 15,
    ]
    for key in rounds[0]["servers"]:
        for clients in rounds[0]["servers"][key]["load"]:
            runs = [(r["raw"], r["servers"][key]["load"][clients]) for r in rounds]
            rows.append(_row(key, rounds[0]["servers"][key]["setting"], clients, runs))
    return "\n".join(rows)


def _row(name: str, setting: str, clients: str, runs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    loads = [load for _, load in runs]
    cells = [name, setting, clients, f"{_median(load['rate'] for load in loads):.1f}"]
    cells.append(f"{_median(load['rate_without_client'] for load in loads):.1f}")
    cells.append(f"{_median(load['rate'] / best_plain(raw) for raw, load in runs):.0%}")
    bound = [load["rate"] / best(raw, "parallel") for raw, load in runs]
    cells.append(f"{_median(bound):.0%}")
    cells += [f"{_median(load['latency_ms'][share] for load in loads):.0f}" for share in ("p50", "p95", "p99")]
    cells.append(str(sum(load["errors"] for load in loads)))
    cells.append(f"{sum(load['astray'] for load in loads)} of {sum(load['checked'] for load in loads)}")
    cells.append(f"{_median(cpu_ms(load) for load in loads):.1f}")
    cells.append(f"{_median(load['memory']['pss'] for load in loads):.0f}")
    cells.append(f"{max(0.0, _median(load['others_cpu'] / load['wall'] for load in loads)):.0%}")
    return "| " + " | ".join(cells) + " |"


def _trials(trials: list[dict[str, Any]]) -> str:
    rows = ["| peer | setting | clients | images/s | p50 ms | p99 |", "|---|---|---|---|---|---|"]
    for trial in trials:
        for clients, load in trial["load"].items():
            p50, p99 = (load["latency_ms"][share] for share in ("p50", "p99"))
            words = (trial["name"], trial["setting"], clients, f"{load['rate']:.1f}", f"{p50:.0f}", f"{p99:.0f}")
            rows.append("| " + " | ".join(words) + " |")
    return "\n".join(rows)


def _memory(found: dict[str, Any]) -> str:
    return (
        f"Memory over {found['requests']:,} requests of {found['clients']} clients ({_statuses(found['statuses'])}): "
        f"{found['first']:.1f} MiB before, {found['settled']:.1f} after a fifth, {found['last']:.1f} at the end; "
        f"slope from there {found['slope_mib_per_1000']:+.3f} MiB per 1,000 requests."
    )


def _overload(found: dict[str, Any]) -> str:
    flood, health = found["flood"], found["healthz"]
    return (
        f"Overload, {found['times']:.0f} × capacity ({found['capacity']:.0f}/s) for {flood['seconds']:.0f} s: "
        f"{flood['offered']:,} arrived, {flood['unsent']:,} found all connections of the client busy, "
        f"{flood['connections_opened']:,} connections opened; answers {_statuses(flood['statuses'])}. "
        f"`/healthz` asked every 100 ms: {_statuses(health['statuses'])}, p50 {health['latency_ms']['p50']:.0f} ms, "
        f"longest {health['latency_ms']['max']:.0f} ms. A lone request took {found['alone_ms']:.1f} ms before and "
        f"{found['alone_after_ms']:.1f} ms after; the first to take at most twice as long as before was over "
        f"{found['recovery_ms']:.0f} ms after the flood stopped. Memory {found['memory_before']['rss']:.0f} MiB "
        f"before, {found['memory_after']['rss']:.0f} MiB after."
    )


def _statuses(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))


def _median(values: Any) -> float:
    return statistics.median(list(values))
