"""``sar-classify … --out`` in processes of its own: what stops, kills and crashes them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import hanging
from support.bulk_runs import answer_here, refused, run
from support.folders import listing
from support.many import read_rows, small_png, write_images, write_parquet, write_tar
from support.pictures import huge_png
from support.servers import wait_for

from sar_infer import Classifier

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]
needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit there")


@pytest.fixture(autouse=True)
def _here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names one worker too."""
    monkeypatch.setenv("SAR_WORKERS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)


def parts(count: int, process: subprocess.Popen[str], folder: str = "out") -> None:
    """Wait for so many parts, or for the end of the process."""
    wait_for(lambda: len([*Path(folder).glob("part-*")]) >= count or process.poll() is not None)


def group(leader: int) -> list[int]:
    """Processes of a session that still run."""
    running = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z" and int(status.parent.name) != leader:
            running.append(int(status.parent.name))
    return running


def keys(rows: list[dict]) -> list[str]:
    return [Path(row["key"]).name for row in rows]


# ------------------------------------------------------------------------------------------------------------- crashes
def test_a_worker_that_cannot_start_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(Path("p"), 1)
    hanging.plant(tmp_path_factory.mktemp("flaw") / "site", monkeypatch, hanging.die)
    refused("no worker can start", "p", "--out", "out")


@needs_timers
def test_images_that_kill_or_hang_a_process_are_found_and_set_aside(
    here: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARTS", str(here / "starts"))
    hanging.plant(here / "site", monkeypatch, hanging.hang)
    members = {f"{n}.png": small_png(n) for n in range(12)} | {"5.png": hanging.HANGS, "9.png": hanging.KILLS}
    write_tar(Path("s.tar"), members)
    assert run("s.tar", "--out", "out", "--batch-size", "8", "--set", "image-timeout=1.5").exit_code == 1
    rows = read_rows(Path("out"))
    assert keys(rows) == list(members)
    assert {Path(row["key"]).name: (row["error_kind"], row["error"]) for row in rows if row["error"]} == {
        "5.png": ("timeout", "took more than 1.5 s to decode (image-timeout)"),
        "9.png": ("crash", "the process that read it died: memory, or its decoder"),
    }
    expected = classifier.classify([small_png(n) for n in range(12) if n not in (5, 9)])
    assert [row["label"] for row in rows if not row["error"]] == [result.predictions[0].label for result in expected]
    assert len(Path("starts").read_text()) == 1 + 2 + 3  # among others, for a crash twice, and alone


@needs_timers
@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_a_file_that_crashes_or_hangs_its_reader_costs_its_rest(
    here: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    monkeypatch.setattr("sar_infer.bulk.engine._LONGEST", 2.0)
    hanging.plant(here / "site", monkeypatch, hanging.trap, "sar_infer.bulk.locations")
    images = [small_png(n) for n in range(4)]
    if suffix == ".tar":
        file, at = write_tar(Path("s.tar"), {f"{n}.png": data for n, data in enumerate(images)}), 512 * 30
    else:
        file = write_parquet(Path("s.parquet"), {"image": images}, rows_of_group=4)
        at = 100
    file = file.rename(f"{kind}-{at}{suffix}")
    good = write_images(Path("p"), 2)
    assert run(str(file), "p", "--out", "out", "--batch-size", "4").exit_code == 1
    first, second = (read_rows(Path(f"out/part-00000{n}.parquet")) for n in range(2))
    assert (first[-1]["key"], first[-1]["error_kind"]) == (str(file), "source")
    assert all(row["error"] is None for row in first[:-1])
    assert keys(second) == [path.name for path in good]


def test_workers_that_fail_at_everything_end_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("p"), 1)
    hanging.plant(here / "site", monkeypatch, hanging.fail)
    assert "no rows today" in run("p", "--out", "out").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit there")
def test_an_image_for_which_there_is_no_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging.plant(here / "site", monkeypatch, hanging.starve)
    images = {"small.png": small_png(1), "large.png": huge_png(7000, 7000), "other.png": small_png(3)}
    write_tar(Path("s.tar"), images)
    run("s.tar", "--out", "out")
    assert [row["error_kind"] for row in read_rows(Path("out"))] == [None, "size", None]


# --------------------------------------------------------------------------------------------------- stopped and killed
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_finished_parts(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    write_images(Path("p"), 200)
    process = start("p", "--out", "out", "--chunk-size", "4")
    parts(2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    line = r"^interrupted; (\d+) of 200 images are kept; the same command with --resume continues"
    kept = re.search(line, errors, re.MULTILINE)
    assert kept is not None, errors
    assert int(kept[1]) == len(read_rows(Path("out"))) >= 8
    assert "Traceback" not in errors
    assert not [name for name in listing(Path("out")) if name.startswith(".")]
    assert not Path("out/_SUCCESS.json").exists()
    answer_here(monkeypatch)
    assert run("p", "--out", "out", "--chunk-size", "4", "--resume").exit_code == 0
    assert len(read_rows(Path("out"))) == 200


@needs_timers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_run_though_an_image_hangs(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    hanging.plant(here / "site", monkeypatch, hanging.hang)
    write_images(Path("p"), 4)
    write_tar(Path("s.tar"), {"hangs.png": hanging.HANGS})
    process = start("p", "s.tar", "--out", "out", "--chunk-size", "1", "--set", "image-timeout=3600")
    try:
        parts(4, process)
        assert group(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else -number), errors
    wait_for(lambda: not group(process.pid))


@pytest.mark.slow
def test_kills_lose_and_double_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At random points, the start and the end among them; what comes of it is what an undisturbed run gives."""
    write_images(Path("p"), 60)
    Path("p/bad.jpg").write_bytes(b"no")
    write_tar(Path("s.tar"), {f"{n}.png": small_png(n) for n in range(100, 140)})
    arguments = ("p", "s.tar", "--chunk-size", "8", "--batch-size", "4", "--workers", "2")
    answer_here(monkeypatch)
    assert run(*arguments, "--out", "undisturbed").exit_code == 1
    out, chance = "out", random.Random(6)
    for kill, finished in enumerate((1, 3, 5, 8)):
        process = start(*arguments, "--out", out, "--resume")
        parts(finished, process)
        time.sleep(chance.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL) if kill % 2 else process.kill()
        process.communicate(timeout=60)
    assert run(*arguments, "--out", out, "--resume").exit_code == 1
    assert read_rows(Path(out)) == read_rows(Path("undisturbed"))
    for folder in (Path(out), Path("undisturbed")):
        assert not [name for name in listing(folder) if name.startswith(".")]


@pytest.mark.parametrize(("number", "wait"), [(signal.SIGINT, 0), (signal.SIGTERM, 0.3)])
def test_a_signal_to_all_at_once_while_workers_start(number: int, wait: float) -> None:
    """As a terminal sends it: to the run and to processes that Python is still starting in."""
    write_images(Path("p"), 40)
    process = start("p", "--out", "out", "--workers", "2")
    wait_for(lambda: group(process.pid) or process.poll() is not None)
    time.sleep(wait)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    assert process.returncode in (128 + number, 0), errors
