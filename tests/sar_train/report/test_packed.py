"""Packed results: what is kept, what wins, and what stays where it was."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest
from support.folders import listing
from support.results import result, write

from sar_infer.storage.files import locked
from sar_train.errors import DataError
from sar_train.report.packed import ARCHIVE, pack, packed_runs, unpack
from sar_train.report.results import read


def silent(text: str) -> None:
    del text


def runs(folder: Path, *seeds: int, base: float = 80.0) -> list[Path]:
    """Write results in a folder for their dataset, each with its TOML file."""
    paths = []
    for seed in seeds:
        paths.append(write(folder / "caltech101", result(seed=seed, base=base)))
        paths[-1].with_suffix(".toml").write_text(f"seeds = [{seed}]\n")
    return paths


def test_a_line_has_all_of_a_run(tmp_path: Path) -> None:
    numbers = [random.Random(seed).uniform(-1, 1) * 10 ** random.Random(seed).randint(-20, 20) for seed in range(500)]
    content = result("naïve\n\u2028 {}", other_metrics={"numbers": numbers, "ints": [1, -0.0, 10**20]})
    write(tmp_path / "mine", content, name="x.json").with_suffix(".toml").write_text("seeds = [1]\n")
    assert pack(tmp_path, silent) == (1, 1)
    (line,) = lzma.decompress((tmp_path / ARCHIVE).read_bytes()).decode().split("\n")[:-1]
    whole = {"path": "mine/x.json", "result": content, "toml": "seeds = [1]\n"}
    assert json.dumps(json.loads(line)) == json.dumps(whole)  # in the same order
    (run,) = unpack(tmp_path)
    assert repr(run.result) == repr(content)
    assert listing(tmp_path) == [ARCHIVE]


def test_the_same_results_give_the_same_bytes_and_nothing_new_leaves_the_file_alone(tmp_path: Path) -> None:
    for name, steps in (("once", ((1, 2, 3),)), ("in steps", ((3,), (1, 2))), ("again", ((2, 1), (3,), (1,)))):
        for seeds in steps:
            runs(tmp_path / name, *seeds)
            pack(tmp_path / name, silent)
    once, *others = ((tmp_path / name / ARCHIVE).read_bytes() for name in ("once", "in steps", "again"))
    assert others == [once, once]
    before = (tmp_path / "once" / ARCHIVE).stat().st_mtime_ns
    assert pack(tmp_path / "once", silent) == (3, 0)
    assert (tmp_path / "once" / ARCHIVE).stat().st_mtime_ns == before


def test_a_loose_result_wins_until_it_is_packed(tmp_path: Path) -> None:
    runs(tmp_path, 1, 2)
    paths = [run.path for run in read(tmp_path).runs]
    pack(tmp_path, silent)
    runs(tmp_path, 1, base=50.0)
    for _ in range(2):
        results = read(tmp_path)
        assert [run["metrics"]["base_accuracy"] for run in results.runs] == [50.0, 80.0]
        assert (results.replaced, results.copies) == ((), ())
        assert [run.path for run in results.runs] == paths
        pack(tmp_path, silent)
    assert [path.relative_to(tmp_path) for path, _ in packed_runs(tmp_path)] == paths


def test_what_is_no_finished_run_stays(tmp_path: Path) -> None:
    (path,) = runs(tmp_path, 1)
    stay = ["caltech101/.coop-s9/state.json", "caltech101/coop-s1/record.json", "caltech101/coop-s2.toml", "notes.json"]
    for name in stay:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    lines: list[str] = []
    pack(tmp_path, lines.append)
    assert lines == [
        f"Warning: {tmp_path / 'broken.json'}: not readable (JSONDecodeError); left where it is",
        f"Warning: {tmp_path / 'notes.json'}: not a result; left where it is",
    ]
    assert not path.exists()
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted([*stay, "broken.json", ARCHIVE])


def test_nothing_is_deleted_that_was_not_written_or_while_another_process_packs(tmp_path: Path) -> None:
    before = runs(tmp_path, 1, 2)
    with locked(tmp_path / ARCHIVE), pytest.raises(DataError, match="another process"):
        pack(tmp_path, silent)
    (tmp_path / ARCHIVE).mkdir()  # so that it cannot be written
    with pytest.raises(DataError):
        pack(tmp_path, silent)
    assert all(path.exists() and path.with_suffix(".toml").exists() for path in before)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not compressed",
        lzma.compress(b"{}\n")[:-4],
        lzma.compress(b"{}\n"),
        lzma.compress(b"[1]\n"),
        lzma.compress(b"\xff\n"),
        lzma.compress(b'{"path": "../x.json", "result": {}, "toml": null}\n'),
        lzma.compress(b'{"path": "/x.json", "result": {}, "toml": null}\n'),
        lzma.compress(b'{"path": "x.json", "result": [], "toml": null}\n'),
    ],
    ids=["empty", "plain", "cut", "no keys", "list", "bytes", "upwards", "absolute", "no result"],
)
def test_a_damaged_file_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    (path,) = runs(tmp_path, 1)
    (tmp_path / ARCHIVE).write_bytes(content)
    for call in (read, lambda folder: pack(folder, silent)):
        with pytest.raises(DataError, match=f"{ARCHIVE}: damaged") as caught:
            call(tmp_path)
        assert "\n" not in str(caught.value)
    assert path.exists()
    assert (tmp_path / ARCHIVE).read_bytes() == content
