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


def write(folder: Path, name: str, seed: int, base: float, new: float, apart: float, **ways: float) -> None:
    """Write a run whose accuracies over both kinds of classes are lower by ``apart``, and those of other ways."""

    def scores(base: float, new: float) -> dict[str, float]:
        return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": 2 * base * new / (base + new)}

    content = {
        "name": name,
        "seed": seed,
        "config": {"data": "lists/set.csv", "base_classes": f"deal:{seed}"},
        "metrics": scores(base, new),
        "zero_shot": scores(50.0, 60.0),
        "open": {
            "metrics": {"images": scores(base - apart, new - apart)},
            "other_metrics": {f"statistics{way}": {"images": scores(value, value)} for way, value in ways.items()},
        },
    }
    (folder / f"{name}-{seed}.json").write_text(json.dumps(content))


def test_differences_are_between_runs_of_the_same_pair(table: dict, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for seed, level in ((1, 40.0), (2, 60.0), (3, 80.0)):
        write(folder, "no SAR", seed, level, level, 10)
        write(folder, "squared 10", seed, level + seed, level + seed, 10)
    write(folder, "one", 3, 90, 90, 30, **{"": 80.0, "-switched": 70.0})
    write(folder, "ProGrad, no SAR", 3, 70, 70, 30, **{"": 60.0})  # of the class model before
    write(folder, "ProGrad, some", 3, 90, 90, 30)
    heads, *lines = table["table"](table["read"]([tmp_path]), "set")
    rows = {line[0]: dict(zip(heads[1:], line[1:], strict=True)) for line in lines}
    # gains of 1, 2 and 3: Student's t of two degrees of freedom is 4.303, the standard error 1 / sqrt(3)
    some, one = rows["teacher 10"], rows["one"]
    assert (some["pairs"], some["base / new"], some["H"], some["joint H"]) == ("3", "62.0 / 62.0", "62.0", "52.0")
    assert (some["H - no SAR"], some["joint H - no SAR"]) == ("+2.0 ± 2.5", "+2.0 ± 2.5")
    assert (one["H - no SAR"], one["joint H - no SAR"], one["H - teacher 10"]) == ("+10.0", "-10.0", "+7.0")
    assert (one["class model"], one["class model, switched"], one["class model - no SAR"]) == ("80.0", "70.0", "")
    assert one["switched H"] == "72.0"  # of 90 and 60
    assert one["H - no SAR switched"] == "+21.4"  # of 80 and 60: 68.57
    assert rows["no SAR"]["H - no SAR"] == rows["ProGrad, no SAR"]["class model"] == ""
    assert rows["ProGrad, some"]["H - no SAR"] == "+20.0"


def test_committed_results_print(
    table: dict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["table.py", str(RULER.parents[1] / "results" / "ruler")])
    table["main"]()
    printed = capsys.readouterr().out
    assert all(f"**{data}**" in printed for data in ("caltech101", "dtd", "garments"))
    assert "| no SAR |" in printed
