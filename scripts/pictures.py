"""Draw the charts of the documentation, ``docs/assets/*.svg``, from committed results: ``python -m scripts.pictures``.

A colour that must follow the reader's theme is a variable of the file's style sheet.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
ASSETS, RESULTS, REPORTS = ROOT / "docs" / "assets", ROOT / "benchmarks" / "results", ROOT / "docs" / "reports"
INK, GRID = "#010203", "#040506"
STYLE = (
    ":root { --ink: #1b2430; --grid: #d5dbe1 } "
    "@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --grid: #3a434d } }"
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a8f98")
SETS = {"garments": "garments", "caltech": "Caltech101", "dtd": "textures (DTD)", "pacs": "PACS"}
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sar-clip",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
Row = dict[str, str]


def figure(width: float = 7.2, height: float = 3.6) -> tuple[Figure, Any]:
    """Return an empty figure, in inches, and its axes."""
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots()


def save(drawing: Figure, name: str, title: str) -> None:
    """Write a figure as SVG whose text and grid have the reader's colours."""
    path = ASSETS / f"{name}.svg"
    drawing.savefig(path, transparent=True, metadata={"Date": None, "Creator": "scripts/pictures.py", "Title": title})
    text = path.read_text("utf-8").replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    text = re.sub(r'font: (\d+)px [^;"]*', r"font: \1px system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", text)
    text = text.replace("<defs>", f"<style>{STYLE}</style><defs>", 1)
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", "utf-8")


def benchmark(what: str, deal: str) -> list[Row]:
    """Return rows of the class model in ``class_model.csv``, of unchanged photos."""
    with (RESULTS / "class_model.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["system"], row["what"]) == ("model", what)]
    return [row for row in rows if (row["deal"], row["kind"]) == (deal, "photos")]


def table(path: Path, heading: str = "") -> list[Row]:
    """Return the rows of the first Markdown table of a file, or of the first after a heading."""
    text = path.read_text("utf-8")
    lines = re.search(r"(?:^\|.*\n)+", text[text.index(heading) :], re.MULTILINE)
    if lines is None:
        raise ValueError(f"{path}: no table after {heading!r}")
    names, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[0].splitlines()]
    return [dict(zip(names, row, strict=False)) for row in rows]


def number(text: str) -> float:
    """Return the first number of a cell."""
    return float(re.findall(r"-?\d+(?:\.\d+)?", text)[0])


def bars(axes: Any, groups: Sequence[str], series: dict[str, list[list[float]]], unit: str, least: float = 0) -> None:
    """Draw groups of bars, each the mean of its figures, with lines from the lowest to the highest."""
    width = 0.8 / len(series)
    for place, (name, figures) in enumerate(series.items()):
        at = [group + (place - (len(series) - 1) / 2) * width for group in range(len(groups))]
        heights = [mean(of_group) for of_group in figures]
        ends = [[h - min(f) for h, f in zip(heights, figures, strict=True)]]
        ends += [[max(f) - h for h, f in zip(heights, figures, strict=True)]]
        axes.bar(at, heights, width * 0.92, color=COLOURS[place], label=name)
        if any(map(any, ends)):
            axes.errorbar(at, heights, ends, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=least)
    axes.grid(axis="y")
    axes.tick_params(length=0)


def shots() -> None:
    """Accuracy over photos of each class: class model, linear probe, a learned prompt, names."""
    drawing, axes = figure()
    counts = ["1", "2", "4", "8", "16"]
    modelled = table(ROOT / "docs" / "experiments.md", "| shots |")[0]
    axes.plot(counts, [float(modelled[count]) for count in counts], color=COLOURS[2], marker="o", label="class model")
    rows = table(REPORTS / "few-shot" / "tables" / "few-shot-caltech101-sar-mini.md")
    labels = {"linear probe": "linear probe", "CoOp": "learned prompt (CoOp)", "zero-shot": "names only"}
    for colour, (method, label) in zip((COLOURS[0], COLOURS[1], COLOURS[4]), labels.items(), strict=True):
        row = next(row for row in rows if row["method"] == method)
        cells = [re.findall(r"\d+\.\d", row[f"{count} shot" + "s" * (count != "1")]) for count in counts]
        spread = [float(cell[1]) if len(cell) > 1 else 0 for cell in cells]
        accuracy = [float(cell[0]) for cell in cells]
        axes.errorbar(counts, accuracy, spread, color=colour, marker="o", capsize=3, label=label)
    axes.set(xlabel="photos of each class", ylabel="accuracy among 100 classes, %", ylim=(40, 100))
    axes.grid(axis="y")
    axes.legend(loc="lower center", ncols=2)
    save(
        drawing,
        "shots",
        "Accuracy over photos of each class on Caltech101: class model, linear probe, learned prompt, names",
    )


def worth() -> None:
    """Names only, class model and linear probe, on 16 photos of each class."""
    series: dict[str, list[list[float]]] = {"names only": [], "class model": [], "linear probe": []}
    for name in SETS:
        rows = [row for row in benchmark("alone", "reporting") if row["set"] == name]
        for key, column in zip(series, ("base", "new", "h"), strict=True):
            series[key].append([float(row[column]) for row in rows])
    drawing, axes = figure()
    bars(axes, [*SETS.values()], series, "accuracy of trained classes, %")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    save(drawing, "worth", "Names only, class model and linear probe on 16 photos of each class of four sets")


def added() -> None:
    """Accuracy of added classes over their photos, lowest to highest of the draws."""
    drawing, axes = figure()
    for colour, (name, label) in zip(COLOURS, SETS.items(), strict=False):
        accuracy = defaultdict(list)
        for row in benchmark("names", "reporting"):
            if row["set"] == name:
                accuracy[int(row["photos"])].append(float(row["new"]))
        counts = sorted(accuracy)
        axes.plot(
            range(len(counts)), [mean(accuracy[count]) for count in counts], color=colour, marker="o", label=label
        )
        lows, highs = ([end(accuracy[count]) for count in counts] for end in (min, max))
        axes.fill_between(range(len(counts)), lows, highs, color=colour, alpha=0.15, linewidth=0)
        axes.set_xticks(range(len(counts)), ["by name", *(f"{count} photo{'s' * (count > 1)}" for count in counts[1:])])
    axes.set(ylabel="accuracy of added classes, %", ylim=(0, 100))
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    save(drawing, "added", "Accuracy of classes that are added later, by name and by 1, 2 or 4 photos of each")


def promise() -> None:
    """Expected and measured accuracy, a point for each draw."""
    drawing, axes = figure(4.8, 4.2)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=":")
    for colour, (name, label) in zip(COLOURS, SETS.items(), strict=False):
        rows = [row for row in benchmark("promise", "choosing") if row["set"] == name]
        for filled, keys in ((True, ("base", "new")), (False, ("h", "accuracy"))):
            x, y = ([100 * float(row[key]) for row in rows] for key in keys)
            axes.scatter(x, y, 26, colour if filled else "none", edgecolors=colour, label=label if filled else None)
    axes.set(xlabel="expected by create, %", ylabel="measured on other photos, %", xlim=(0, 103), ylim=(0, 103))
    axes.grid()
    axes.legend(loc="upper left", title="filled: fitted classes\nopen: added ones", alignment="left")
    save(drawing, "promise", "The accuracy that create expects against the accuracy that was measured")


def unknown() -> None:
    """Share of unknown images found at 5 % false alarms, near and far."""
    text = RESULTS / "class_model_unknown.md"
    rows = table(text, "## Reporting deal")
    series: dict[str, list[list[float]]] = {"photos of other sets": [], "absent classes of the same set": []}
    for name in SETS:
        row = next(row for row in rows if (row["set"], row["images"], row["photos"]) == (name, "photos", "2"))
        series["photos of other sets"].append([number(row["far at 5"])])
        series["absent classes of the same set"].append([number(row["near at 5"])])
    drawing, axes = figure()
    bars(axes, [*SETS.values()], series, "found at 5 % false alarms, %")
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    save(drawing, "unknown", "Unknown images found if 5 % of the known ones are called unknown, by how near they are")


def wrong_labels() -> None:
    """Accuracy with photos in wrong folders, without those in doubt, without any wrong one."""
    rows = table(RESULTS / "label_issues.md", "Accuracy in per cent of the class model")
    rows = [row for row in rows if (row["wrong labels"], row["share"]) == ("nearest", "20%")]
    names = ("with the wrong photos", "without those in doubt", "without any wrong one")
    drawing, axes = figure()
    bars(
        axes,
        [SETS[row["set"]] for row in rows],
        {n: [[number(row[n])] for row in rows] for n in names},
        "accuracy, %",
        60,
    )
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    save(drawing, "wrong_labels", "Accuracy if 20 % of the photos are in the folder of the nearest class")


def serving() -> None:
    """Images a second of three servers."""
    trials: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for row in table(RESULTS / "serving.md", "| server |"):
        trials[row["server"]].setdefault(row["clients"], []).append(number(row["images/s"]))
    drawing, axes = figure()
    groups = ["1", "8", "32"]
    series = {name: [rates[group] for group in groups] for name, rates in trials.items()}
    bars(axes, [f"{group} client{'s' * (group != '1')}" for group in groups], series, "images/s on two cores")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    save(drawing, "serving", "Images a second of sar-serve, LitServe and mosec with 1, 8 and 32 clients")


def encoders() -> None:
    """Published accuracy of encoders over the measured time of a photo, in INT8 and in float32."""
    drawing, axes = figure(7.2, 4.2)
    for row in table(ROOT / "docs" / "encoders.md"):
        if row["ImageNet"] == "–":
            continue
        accuracy, times = number(row["ImageNet"]), [number(row["ms in INT8"]), number(row["ms"])]
        axes.plot(times, [accuracy] * 2, color=COLOURS[4], linewidth=1)
        axes.plot(times[:1], [accuracy], "o", color=COLOURS[1])
        axes.plot(times[1:], [accuracy], "o", color=COLOURS[0])
        shift = (7, 6 if row["encoder"].startswith("PE") else 0)  # SigLIP 2 B/16 is nearly as accurate
        axes.annotate(row["encoder"], (max(times), accuracy), shift, textcoords="offset points", va="center", size=9)
    axes.set(xscale="log", xlim=(25, 9000), xlabel="processor time of a photo, ms", ylabel="ImageNet accuracy, %")
    axes.set_xticks([30, 100, 300, 1000, 3000], ["30", "100", "300", "1,000", "3,000"])
    axes.grid(visible=True)
    names = {"INT8": COLOURS[1], "float32": COLOURS[0]}
    axes.legend(handles=[axes.plot([], [], "o", color=colour, label=name)[0] for name, colour in names.items()])
    save(drawing, "encoders", "Published zero-shot accuracy of ten encoders over the time of a photo on two cores")


def throughput() -> None:
    """Images a second, file to answer, against open_clip."""
    labels = {"open_clip": "open_clip", "fp32": "sar-clip", "int8": "sar-clip, INT8"}
    rows = [row for row in table(RESULTS / "throughput.md") if row["cores"] == "2"]
    models = [*dict.fromkeys(row["model"] for row in rows)]
    series: dict[str, list[list[float]]] = {label: [] for label in labels.values()}
    for row in rows:
        rates = [float(rate) for rate in re.findall(r"\d+\.\d", row["images/s, file to answer (lowest to highest)"])]
        series[labels[row["contender"]]].append(rates)
    drawing, axes = figure()
    bars(axes, models, series, "images/s on two cores")
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    save(drawing, "throughput", "Images a second from file to answer: open_clip, this package, and its INT8 graphs")


def cold_start() -> None:
    """Seconds and MiB of a whole process."""
    content = json.loads((RESULTS / "cold_start.txt").read_text("utf-8").splitlines()[-1])
    drawing, axes = figure(7.2, 1.9)
    names = [one["command"] for one in content][::-1]
    axes.barh(names, [one["seconds"] for one in content][::-1], 0.6, color=[COLOURS[0], COLOURS[4]])
    for place, one in enumerate(content[::-1]):
        axes.text(one["seconds"] + 0.05, place, f"{one['seconds']:.2f} s, {one['peak_mib']:.0f} MiB", va="center")
    axes.set(xlabel="seconds from start to end", xlim=(0, 5.6))
    axes.tick_params(length=0)
    save(drawing, "cold_start", "A whole process: sar-classify on one photo, and only importing torch and open_clip")


def changes() -> Iterator[tuple[str, float, float]]:
    """Yield the method, SAR's change of H, and half the width of its interval."""
    for row in table(ROOT / "docs" / "experiments.md", "| SAR's difference ± 95 % interval"):
        name = row["SAR's difference ± 95 % interval"].replace("the same", "above the better of plain and switched")
        change, half = re.findall(r"-?\d+\.\d", row["H"].replace("+", ""))
        yield name, float(change), float(half)


def sar() -> None:
    """SAR's change of H with its interval."""
    drawing, axes = figure(7.2, 2.8)
    rows = [*changes()][::-1]
    axes.axvline(0, color=INK, linewidth=1)
    axes.errorbar(
        [row[1] for row in rows], range(len(rows)), xerr=[row[2] for row in rows], fmt="o", color=COLOURS[0], capsize=3
    )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set(xlabel="change of H in points, with 95 % intervals")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    save(
        drawing, "sar", "SAR's change of the harmonic mean for three methods, with 95 % intervals that all include zero"
    )


CHARTS = (shots, worth, added, promise, unknown, wrong_labels, encoders, serving, throughput, cold_start, sar)


def main() -> None:
    """Draw all charts."""
    with mpl.rc_context(SETTINGS):
        for chart in CHARTS:
            chart()


if __name__ == "__main__":
    main()
