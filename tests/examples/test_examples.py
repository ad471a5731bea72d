"""The scripts and the notebook in ``examples/`` run, in the order that their README gives, on some of the photos."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ONCE = Path(__file__).with_name("once.py")
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES.parent / "tests")]),
}
pytestmark = pytest.mark.slow


def python(*command: str | Path, cwd: Path, code: str = "") -> list[str]:
    """Lines that a program in a process of its own printed; it has to succeed."""
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=ENVIRONMENT, input=code, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the folder with every third photo to train on and to try."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        photos = sorted(name for name in names if name.endswith(".jpg"))
        step = {"train": 3, "test": 3}.get(Path(folder).parent.name, 1)
        return {*photos} - {*photos[::step]}

    return shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("copy") / "examples", ignore=left_out)


@pytest.fixture(scope="module")
def trained(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("example")
    return folder, python(ONCE, folder / "kept", examples / "train_and_export.py", folder, cwd=folder)


def test_train_and_export(trained: tuple[Path, list[str]]) -> None:
    folder, printed = trained
    zero_shot, this_run = next(
        re.findall(r"\d+\.\d", line) for line in printed if line.startswith("zero-shot") and "this run" in line
    )
    assert float(this_run) > float(zero_shot)
    assert printed[-1].endswith("dress, hat, jacket, long-sleeved shirt, shirt, trousers")
    assert (folder / "bundle" / "manifest.json").is_file()


def test_add_by_photos(examples: Path, trained: tuple[Path, list[str]]) -> None:
    printed = python(examples / "add_by_photos.py", trained[0], cwd=trained[0])
    counts = {line[:20].strip(): [int(n) for n in re.findall(r"\d+", line)] for line in printed}
    assert sorted(counts) == sorted(path.name for path in (examples / "clothes" / "test").iterdir())
    added = [counts[path.name] for path in (examples / "clothes" / "added").iterdir()]
    assert sum(found for found, _ in added) > 0.3 * sum(of for _, of in added)


def test_classify_folder(examples: Path, trained: tuple[Path, list[str]]) -> None:
    printed = python(examples / "classify_folder.py", trained[0], cwd=trained[0])
    table = pq.read_table(trained[0] / "answers.parquet")
    photos = [*(examples / "clothes").glob("test/*/*.jpg")]
    assert table.num_rows == len(photos) == sum(int(line.split()[0]) for line in printed)
    assert table["error"].null_count == table.num_rows


def test_serve_and_call(examples: Path, trained: tuple[Path, list[str]]) -> None:
    printed = python(examples / "serve_and_call.py", trained[0], cwd=trained[0])
    before, after = (line for line in printed if re.match(r".+ \d\.\d\d, .+ \d\.\d\d$", line))
    assert "shoes" not in before
    assert "shoes" in after


@pytest.mark.parametrize("name", ["add_by_photos.py", "classify_folder.py", "serve_and_call.py"])
def test_without_a_bundle_they_say_how_to_make_one(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, tmp_path], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path / 'bundle'} is missing; make it with: python examples/train_and_export.py {tmp_path}"
    ]


def test_a_new_method_a_new_regulariser_and_a_new_layout(examples: Path, tmp_path: Path) -> None:
    """One after the other in one process, which importing PyTorch and encoding the photos costs once."""
    scripts = [str(examples / f"new_{name}.py") for name in ("method", "regulariser", "layout")]
    code = f"import runpy\nfor script in {scripts!r}: print(script), runpy.run_path(script, run_name='__main__')"
    printed = "\n".join(python("-c", code, tmp_path, cwd=tmp_path))
    method, regulariser, layout = re.split("|".join(map(re.escape, scripts)), printed)[1:]
    assert re.search(r"^epoch 2/2.*stay 0\.", method, re.MULTILINE)
    assert json.loads((tmp_path / "stay" / "record.json").read_text())["config"]["method"] == "stay"
    assert re.search(r"^epoch 2/2", regulariser, re.MULTILINE)
    record = json.loads((tmp_path / "near" / "record.json").read_text())
    assert record["settings"]["near"] == {"weight": 8, "novel": 16}
    assert record["history"][0]["regulariser"] > 0
    assert re.fullmatch(r"6 classes, \d+\.\d %", layout.splitlines()[-1])


@pytest.mark.nightly
def test_the_notebook(examples: Path, trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """With what the first script has learned, from the same photos with the same options."""
    (tmp_path / "clothes").symlink_to(examples / "clothes")
    cells = json.loads((EXAMPLES / "shop.ipynb").read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code += "\nprint(len(Classifier.open(bundle.path, bank=folder / 'shop.safetensors').bank.names))"
    printed = python(ONCE, trained[0] / "kept", "-", cwd=tmp_path, code=code)
    assert printed[-1] == "10"
    assert len([*(trained[0] / "kept").iterdir()]) == 1, "the first example and the notebook train differently"


def test_every_example_is_run_and_listed() -> None:
    page, tests = (EXAMPLES / "README.md").read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert len(names) == 8
    assert [name for name in names if name not in page] == []
    assert [name for name in names if not name.startswith("new_") and f'"{name}"' not in tests] == []
