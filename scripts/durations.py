"""Write tests/durations.json from a JUnit report: ``python -m scripts.durations REPORT.xml``.

It holds the seconds of each test file that takes more than three, so that the longest begin first.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "tests" / "durations.json"
LEAST_S = 3


def main(report: str) -> None:
    """Add the times of the report's tests by file; a test's class name is its module."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own report
        seconds[test_file(case.get("classname", ""))] += float(case.get("time", 0))
    longest = {
        name: round(total) for name, total in sorted(seconds.items(), key=lambda item: -item[1]) if total > LEAST_S
    }
    TARGET.write_text(json.dumps(longest, indent=1) + "\n", encoding="utf-8")
    total = sum(seconds.values())
    print(f"{TARGET.relative_to(ROOT)}: {len(longest)} files of more than {LEAST_S} s, {total:.0f} s in all")


def test_file(module: str) -> str:
    """Return the path of a module's file, without the classes that JUnit adds to its name."""
    names = module.split(".")
    while names and not (ROOT / "/".join(names)).with_suffix(".py").is_file():
        names.pop()
    return "/".join(names) + ".py"


if __name__ == "__main__":
    main(sys.argv[1])
