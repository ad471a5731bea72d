"""Results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import command

GIGA = 1e9


HEADS = (
    "model", "cores", "contender", "setting", "images/s, file to answer (lowest to highest)", "× open_clip", "× fp32",
    "images/s, encoding alone", "× open_clip", "× fp32", "GFLOP/s", "of the peak", "decoding ms", "MiB (PSS)",
    "others' CPU",
)  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """Return the whole page."""
    models, peaks = results["models"], results["peaks"]
    of_forms = ("model", "form", "compared with", "same best class", "least cosine", "mean cosine")
    kinds = list(next(iter(peaks.values())))
    products = [(cores, *(f"{speeds[kind]:.0f}" for kind in kinds)) for cores, speeds in peaks.items()]
    tried = ("model", "cores", "contender", "setting", "images/s, file to answer", "encoding alone")
    return "\n\n".join(
        [
            f"Photos: {results['photos']}.",
            command.markdown(HEADS, _rows(results)),
            command.markdown(of_forms, _agreement(models)),
            command.markdown(("cores", *(f"{kind}, G operations/s" for kind in kinds)), products),
            "Settings, tried once each; the best went on:",
            command.markdown(tried, _trials(models)),
        ]
    )


Row = tuple[object, ...]


def _rows(results: dict[str, Any]) -> Iterator[Row]:
    for name, model in results["models"].items():
        for cores, measured in model["cores"].items():
            peak = max(results["peaks"][cores][kind] for kind in ("numpy", "torch", "onnxruntime"))
            for contender, setting in measured["chosen"].items():
                cells = _cells(contender, measured["rounds"], model["flops"][contender], peak)
                yield (name, cores, contender, setting, *cells)


def _cells(contender: str, rounds: list[dict[str, Any]], flops: float, peak: float) -> Row:
    runs = [one[contender] for one in rounds]
    rates = [run["answers"] for run in runs]
    encode = _median(runs, "encode")
    speed = encode * flops / GIGA
    return (
        f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})",
        *_ratios(rounds, contender, "answers"),
        f"{encode:.1f}",
        *_ratios(rounds, contender, "encode"),
        f"{speed:.0f}",
        f"{speed / peak:.0%}" if contender in ("open_clip", "fp32") else "",
        f"{_median(runs, 'decode_ms'):.1f}",
        f"{_median(runs, 'mib'):.0f}",
        f"{max(0.0, _median(runs, 'others')):.0%}",
    )


def _ratios(rounds: list[dict[str, Any]], contender: str, key: str) -> list[str]:
    """Return the ratios to open_clip and to fp32, medians of those of each round."""
    ratios = []
    for other in ("open_clip", "fp32"):
        ratio = statistics.median(one[contender][key] / one[other][key] for one in rounds)
        ratios.append("" if contender in (other, "open_clip") else f"{ratio:.2f}")
    return ratios


def _agreement(models: dict[str, Any]) -> Iterator[Row]:
    for name, model in models.items():
        for form, measured in model["agreement"].items():
            cosines = (f"{measured[key]:.6f}" for key in ("min_cosine", "mean_cosine"))
            yield name, form, "open_clip" if form == "fp32" else "fp32", f"{measured['top1']:.1%}", *cosines


def _trials(models: dict[str, Any]) -> Iterator[Row]:
    for name, model in models.items():
        for cores, measured in model["cores"].items():
            for contender, trials in measured["trials"].items():
                for setting, rates in trials:
                    yield name, cores, contender, setting, *(f"{rates[key]:.1f}" for key in ("answers", "encode"))


def _median(runs: Iterable[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)
