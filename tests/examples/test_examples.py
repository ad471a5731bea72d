"""The scripts and the notebook in ``examples/`` run, in the order that their README gives, on some of the photos.

They run in this process, which imports PyTorch once. What no script asks for is left out of the training: random crops
of photos, and another training for each half of the classes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.traces import kept_graphs, remembered

import sar_train
from sar_train import TrainedRun, train
from sar_train.data.readers.base import readers
from sar_train.export import graph
from sar_train.methods.base import methods
from sar_train.regularisers.base import regularisers

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, with every third photo to train on and to try."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        photos = sorted(name for name in names if name.endswith(".jpg"))
        return {*photos} - {*photos[:: 3 if Path(folder).parent.name in ("train", "test") else 1]}

    return shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("copy") / "examples", ignore=left_out)


def briefly(photos: Path | str, **options: Any) -> TrainedRun:
    """Train without what no script asks for."""
    return train(photos, **{"views": 1, "prompt": "learned" if options.get("statistics", True) else "auto"} | options)


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    """Train briefly, share graphs of equal modules, and find the commands of this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sar_train, "train", briefly)
        patch.setattr(graph, "translate", partial(remembered, kept_graphs()))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        yield


def lines_of(script: Path, *arguments: Path) -> list[str]:
    """Run a script as ``python SCRIPT ARGUMENT...`` does, and return the lines that it prints."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the scripts share."""
    return tmp_path_factory.mktemp("example")


@pytest.fixture(scope="module")
def training(examples: Path, folder: Path) -> list[str]:
    """The lines of the first script, which leaves the bundle that the others take."""
    return lines_of(examples / "train_and_export.py", folder)


def test_train_and_export(training: list[str], folder: Path) -> None:
    zero_shot, this_run = next(
        re.findall(r"\d+\.\d", line) for line in training if line.startswith("zero-shot") and "this run" in line
    )
    assert float(this_run) > float(zero_shot)
    assert training[-1].endswith("dress, hat, jacket, long-sleeved shirt, shirt, trousers")
    assert (folder / "bundle" / "manifest.json").is_file()


@pytest.mark.usefixtures("training")
def test_add_by_photos(examples: Path, folder: Path) -> None:
    printed = lines_of(examples / "add_by_photos.py", folder)
    counts = {line[:20].strip(): [int(n) for n in re.findall(r"\d+", line)] for line in printed}
    assert sorted(counts) == sorted(path.name for path in (examples / "clothes" / "test").iterdir())
    added = [counts[path.name] for path in (examples / "clothes" / "added").iterdir()]
    assert sum(right for right, _ in added) > 0.3 * sum(photos for _, photos in added)


@pytest.mark.usefixtures("training")
def test_classify_folder(examples: Path, folder: Path) -> None:
    printed = lines_of(examples / "classify_folder.py", folder)
    table = pq.read_table(folder / "answers.parquet")
    photos = [*(examples / "clothes").glob("test/*/*.jpg")]
    assert table.num_rows == len(photos) == sum(int(line.split()[0]) for line in printed)
    assert table["error"].null_count == table.num_rows


@pytest.mark.usefixtures("training")
def test_serve_and_call(examples: Path, folder: Path) -> None:
    printed = lines_of(examples / "serve_and_call.py", folder)
    before, after = (line for line in printed if re.match(r".+ \d\.\d\d, .+ \d\.\d\d$", line))
    assert "shoes" not in before
    assert "shoes" in after


@pytest.mark.parametrize("name", ["add_by_photos.py", "classify_folder.py", "serve_and_call.py"])
def test_without_a_bundle_they_say_how_to_make_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        lines_of(EXAMPLES / name, tmp_path)
    command = f"python examples/train_and_export.py {tmp_path}"
    assert caught.value.code == f"{tmp_path / 'bundle'} is missing; make it with: {command}"


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget afterwards what a script registers."""
    entries = [(registry._entries, {**registry.entries}) for registry in (methods, regularisers, readers)]
    yield
    for registered, before in entries:
        registered.clear()
        registered.update(before)


@pytest.mark.usefixtures("registries")
def test_a_new_method_a_new_regulariser_and_a_new_layout(examples: Path, tmp_path: Path) -> None:
    method, regulariser, layout = (
        lines_of(examples / f"new_{name}.py", tmp_path) for name in ("method", "regulariser", "layout")
    )
    assert any(re.search(r"^epoch 2/2.*stay 0\.", line) for line in method)
    assert json.loads((tmp_path / "stay" / "record.json").read_text())["config"]["method"] == "stay"
    assert any(line.startswith("epoch 2/2") for line in regulariser)
    record = json.loads((tmp_path / "near" / "record.json").read_text())
    assert record["settings"]["near"] == {"weight": 8, "novel": 16}
    assert record["history"][-1]["regulariser"] > 0
    assert re.fullmatch(r"6 classes, \d+\.\d %", layout[-1])


@pytest.mark.filterwarnings("ignore:the class model was fitted without photos")
def test_the_notebook(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads((EXAMPLES / "shop.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 12
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []
    monkeypatch.chdir(examples)
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - our own cells
    assert names["shop"].classes_.size == 7
    assert names["served"].label == "shoes"
    assert "data:image/jpeg" in names["served"]._repr_html_()


def test_every_example_is_run_and_listed() -> None:
    page, tests = (EXAMPLES / "README.md").read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert len(names) == 8
    assert [name for name in names if name not in page] == []
    assert [name for name in names if not name.startswith("new_") and f'"{name}"' not in tests] == []
