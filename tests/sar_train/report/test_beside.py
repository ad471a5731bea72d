"""Our results beside the published ones."""

from __future__ import annotations

from pathlib import Path

from support.results import result, write

from sar_train.report import beside, published
from sar_train.report.results import read

CLIP = {
    "backbone": {"name": "ViT-B-16", "weights_digest": "x"},
    "settings": {"pretrained": "openai", "backbone": "ViT-B-16"},
}


def test_a_dataset(tmp_path: Path) -> None:
    write(tmp_path, result(base=80.0, new=60.0))
    write(tmp_path, result("coop+sar", base=80.0, new=62.0))
    average, found = beside.tables(read(tmp_path))
    row = {r[0].text: [c.text for c in r[1:]] for r in found.rows}["CoOp"]
    # H: ours 68.57 and 69.86, zero-shot 58.98; published 93.45 and 95.40
    assert row == ["98.00", "89.31", "93.45", "80.0", "60.0", "68.6", "80.0", "62.0", "69.9", "-1.9", "+9.6", "+10.9"]
    assert found.notes[0].startswith("Another backbone: the published figures are of ViT-B/16")
    assert "cannot be compared" in " ".join(found.notes[0].split())
    assert not any(c.group == "ours" for c in average.columns)
    assert "10 of the 11 datasets were not run" in average.notes[1]


def test_methods_that_were_not_published_stand_below(tmp_path: Path) -> None:
    write(tmp_path, result("mine"))
    found = beside.tables(read(tmp_path))[-1]
    assert [cell.text for cell in found.rows[-1]][:5] == ["mine", "", "", "", "80.0"]


def test_all_eleven_datasets_under_the_same_backbone(tmp_path: Path) -> None:
    for place, dataset in enumerate(published.load()["datasets"]):
        write(tmp_path, result(dataset=dataset, base=70.0 + place, new=60.0, **CLIP))  # type: ignore[arg-type]
    average = beside.tables(read(tmp_path))[0]
    row = {r[0].text: [c.text for c in r] for r in average.rows}["CoOp"]
    assert row[1:7] == ["82.69", "63.22", "71.66", "75.0", "60.0", "66.7"]
    assert "multimodal-prompt-learning" in row[-1]
    assert average.notes[1] == "Both under ViT-B/16 (OpenAI's weights)."


def test_nothing_is_said_of_other_data_or_shots(tmp_path: Path) -> None:
    write(tmp_path, result(shots=4))
    assert beside.tables(read(tmp_path)) == []
    write(tmp_path, result(dataset="mine"))
    assert [table.key for table in beside.tables(read(tmp_path))] == ["published-average-sar-mini"]
