"""The table of ``experiments/ruler``: candidates are compared with no SAR on the same photos, classes and seed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

RULER = Path(__file__).parents[2] / "experiments" / "ruler" / "table.py"


@pytest.fixture(scope="module")
def table() -> dict[str, object]:
    return runpy.run_path(str(RULER))


def write(folder: Path, name: str, seed: int, base: float, new: float, opened: float) -> None:
    def scores(base: float, new: float) -> dict[str, float]:
        return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": 2 * base * new / (base + new)}

    content = {
        "name": name,
        "seed": seed,
        "config": {"data": "lists/set.csv", "base_classes": f"deal:{seed}"},
        "metrics": scores(base, new),
        "open": {"metrics": {"images": scores(base - opened, new - opened)}},
    }
    (folder / f"{name}-{seed}.json").write_text(json.dumps(content))


def test_differences_are_between_runs_of_the_same_pair(table: dict, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for seed, level in ((1, 40.0), (2, 60.0), (3, 80.0)):
        write(folder, "no SAR", seed, level, level, 10)
        write(folder, "some", seed, level + seed, level + seed, 10)
    write(folder, "one", 3, 90, 90, 30)
    rows = {row[0]: row[1:] for row in table["rows"](table["read"](tmp_path), "set")}
    # gains of 1, 2 and 3: Student's t of two degrees of freedom is 4.303, the standard error 1 / sqrt(3)
    assert rows["some"] == ["3", "62.0 / 62.0 (62.0)", "52.0 / 52.0 (52.0)", "+2.0 ± 2.5", "+2.0 ± 2.5"]
    assert rows["one"] == ["1", "90.0 / 90.0 (90.0)", "60.0 / 60.0 (60.0)", "+10.0", "-10.0"]
    assert rows["no SAR"][-2:] == ["", ""]
    assert list(rows) == ["some", "no SAR", "one"]


def test_committed_results_print(
    table: dict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["table.py", str(RULER.parents[1] / "results" / "ruler")])
    table["main"]()
    printed = capsys.readouterr().out
    assert all(f"**{data}**" in printed for data in ("caltech101", "dtd", "garments"))
    assert "| no SAR |" in printed
