"""Results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

GIGA = 1e9


def markdown(results: dict[str, Any]) -> str:
    """The whole page."""
    peaks = results["peaks"]
    parts = [f"Photos: {results['photos']}.", "\n".join(_rows(results)), "\n".join(_agreement(results["models"]))]
    parts.append("\n".join(_peaks(peaks)))
    parts.append("\n".join(_trials(results["models"])))
    return "\n\n".join(parts) + "\n"


def _rows(results: dict[str, Any]) -> Iterator[str]:
    yield (
        "| model | cores | contender | setting | images/s, file to answer (lowest to highest) | × open_clip | × fp32 "
        "| images/s, encoding alone | × open_clip | × fp32 | GFLOP/s | of the peak | decoding ms | MiB (PSS) "
        "| others' CPU |"
    )
    yield "|" + "---|" * 15
    for name, model in results["models"].items():
        for cores, found in model["cores"].items():
            peak = max(results["peaks"][cores][kind] for kind in ("numpy", "torch", "onnxruntime"))
            for contender, setting in found["chosen"].items():
                yield _row([name, cores, contender, setting], found["rounds"], model["flops"][contender], peak)


def _row(words: list[str], rounds: list[dict[str, Any]], flops: float, peak: float) -> str:
    contender = words[2]
    own = [one[contender] for one in rounds]
    rates = [one["answers"] for one in own]
    cells = [*words, f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"]
    cells += _ratios(rounds, contender, "answers")
    encode = statistics.median(one["encode"] for one in own)
    speed = encode * flops / GIGA
    cells += [f"{encode:.1f}", *_ratios(rounds, contender, "encode"), f"{speed:.0f}"]
    cells.append(f"{speed / peak:.0%}" if contender in ("open_clip", "fp32") else "")
    cells += [
        f"{_median(own, 'decode_ms'):.1f}",
        f"{_median(own, 'mib'):.0f}",
        f"{max(0.0, _median(own, 'others')):.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _ratios(rounds: list[dict[str, Any]], contender: str, key: str) -> list[str]:
    """To open_clip and to fp32, medians of the ratios of each round."""
    found = []
    for other in ("open_clip", "fp32"):
        ratio = statistics.median(one[contender][key] / one[other][key] for one in rounds)
        found.append("" if contender in (other, "open_clip") else f"{ratio:.2f}")
    return found


def _agreement(models: dict[str, Any]) -> Iterator[str]:
    yield "| model | form | compared with | same best class | least cosine | mean cosine |"
    yield "|" + "---|" * 6
    for name, model in models.items():
        for form, found in model["agreement"].items():
            other = "open_clip" if form == "fp32" else "fp32"
            yield (
                f"| {name} | {form} | {other} | {found['top1']:.1%} | {found['min_cosine']:.6f} "
                f"| {found['mean_cosine']:.6f} |"
            )


def _peaks(peaks: dict[str, dict[str, float]]) -> Iterator[str]:
    names = list(next(iter(peaks.values())))
    yield "| cores | " + " | ".join(f"{name}, G operations/s" for name in names) + " |"
    yield "|" + "---|" * (len(names) + 1)
    for cores, found in peaks.items():
        yield f"| {cores} | " + " | ".join(f"{found[name]:.0f}" for name in names) + " |"


def _trials(models: dict[str, Any]) -> Iterator[str]:
    yield "Settings, tried once each; the best went on:"
    yield ""
    yield "| model | cores | contender | setting | images/s, file to answer | encoding alone |"
    yield "|" + "---|" * 6
    for name, model in models.items():
        for cores, found in model["cores"].items():
            for contender, trials in found["trials"].items():
                for setting, rates in trials:
                    rate, encode = (f"{rates[key]:.1f}" for key in ("answers", "encode"))
                    yield f"| {name} | {cores} | {contender} | {setting} | {rate} | {encode} |"


def _median(found: Iterable[dict[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in found)
