"""Print sizes and imports of the code, for docs/design.md: ``python scripts/layout.py [CHECKOUT]``.

Sizes count lines of Python files. Arrows are pairs of rooms (or modules of the root) of which one imports the other;
floors are the most rooms on one path of arrows, with rooms that import each other on one floor.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import grimp

PACKAGES = ("sar_infer", "sar_train")


def sizes(folder: Path) -> tuple[int, int, int, float]:
    """Return lines, files, modules directly in the folder, and the median file in lines."""
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")]
    return sum(lines), len(lines), len(list(folder.glob("*.py"))), statistics.median(lines)


def arrows(package: str) -> set[tuple[str, str]]:
    """Return the imports between rooms of a package, as pairs of their names."""
    graph = grimp.build_graph(package, cache_dir=None)
    pairs = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            ends = [f"{name}.".split(".")[1] for name in (module, imported)]
            if all(ends) and ends[0] != ends[1]:
                pairs.add((ends[0], ends[1]))
    return pairs


def floors(pairs: set[tuple[str, str]]) -> int:
    """Return the number of rooms on the longest path, each cycle counted as one room."""
    reach = {(a, b) for a, b in pairs}
    while more := {(a, d) for a, b in reach for c, d in reach if b == c} - reach:
        reach |= more
    rooms = {room for pair in pairs for room in pair}
    group = {a: frozenset([a, *(b for b in rooms if (a, b) in reach and (b, a) in reach)]) for a in rooms}
    below = {(group[a], group[b]) for a, b in pairs if group[a] != group[b]}

    def depth(top: frozenset[str]) -> int:
        return 1 + max((depth(low) for high, low in below if high == top), default=0)

    return max(map(depth, group.values()))


def main(checkout: Path) -> None:
    """Print one line for each package and one for the tests."""
    sys.path.insert(0, str(checkout))
    for package in (*PACKAGES, "tests"):
        lines, files, root, median = sizes(checkout / package)
        text = f"{package:<10}{lines:>7,} lines {files:>4} files, {root:>3} in the root, median {median:g}"
        if package in PACKAGES:
            imports = arrows(package)
            text += f", {len(imports)} arrows, {floors(imports)} floors"
        print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
