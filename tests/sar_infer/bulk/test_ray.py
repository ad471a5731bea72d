"""The cluster engine, on real clusters of this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.many import read_rows, write_images, write_tar

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install '.[ray]'"),
]

KILL = """
    import subprocess, sys, time, warnings
    warnings.simplefilter("ignore")
    from pathlib import Path
    import psutil
    from ray.cluster_utils import Cluster

    def workers_of(node):
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [child for child in raylet.children() if any("_commit" in word for word in child.cmdline())]

    def wait_for(something, process):
        end = time.monotonic() + 120
        while not (found := something()) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        return found

    if __name__ == "__main__":
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        victim = cluster.add_node(num_cpus=1)
        run = subprocess.Popen([*sys.argv[1:], "--engine", "ray", "--address", cluster.address])
        wait_for(lambda: len([*Path("ray").glob("part-*")]) >= 3, run)
        working = wait_for(lambda: workers_of(victim), run)
        before = len([*Path("ray").glob("part-*")])
        for process in working:
            process.kill()
        cluster.remove_node(victim, allow_graceful=False)
        code = run.wait(300)
        print("killed", len(working), "after", before, "exit", code)
        cluster.shutdown()
"""


@pytest.fixture
def environment(here: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}


def test_a_node_that_is_killed_costs_no_input_and_doubles_none(here: Path, environment: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)).save(f"{number}.jpg")
    Path("bad.jpg").write_bytes(b"no")
    names = [f"{number % 4}.jpg" if number % 50 else "bad.jpg" for number in range(1000)]
    Path("all.txt").write_text("\n".join(names))
    write_tar(Path("s.tar"), {f"{n}.jpg": Path(f"{n}.jpg").read_bytes() for n in range(4)})
    arguments = [*COMMAND, "all.txt", "s.tar", "--chunk-size", "50", "--embeddings"]
    Path("kill.py").write_text(textwrap.dedent(KILL))
    command = [sys.executable, "kill.py", *arguments, "--out", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    (last_line,) = re.findall(r"^killed (\d+) after (\d+) exit (\d+)$", done.stdout, re.MULTILINE)
    killed, before, code = map(int, last_line)
    assert killed >= 1, "the second node had no chunk to lose"
    assert 3 <= before < 21
    assert code == 1, done.stderr[-2000:]  # bad.jpg
    local = subprocess.run([*arguments, "--out", "local", "--workers", "2"], env=environment, timeout=300)
    assert local.returncode == 1
    rows = read_rows(Path("ray"))
    assert [row["key"] for row in rows] == [*names, *(f"s.tar/{n}.jpg" for n in range(4))]
    assert rows == read_rows(Path("local"))
    counts = json.loads(Path("ray/_SUCCESS.json").read_text())["summary"]
    assert (counts["inputs"], counts["rejected"], counts["chunks"]) == (1004, 20, 21)


def test_a_cluster_of_its_own_goes_on_where_one_machine_was(here: Path, environment: dict[str, str]) -> None:
    write_images(Path("p"), 8)
    arguments = [*COMMAND, "p", "--chunk-size", "2", "--out", "answers"]
    first = subprocess.run([*arguments, "--workers", "1"], env=environment, timeout=300)
    assert first.returncode == 0
    expected = read_rows(Path("answers"))
    for name in ("part-000001.parquet", "part-000002.parquet", "_SUCCESS.json"):
        Path("answers", name).unlink()
    again = [*arguments, "--engine", "ray", "--address", "local", "--resume"]
    done = subprocess.run(again, env=environment, timeout=300, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert read_rows(Path("answers")) == expected


def test_a_refusal_of_a_node_is_one_clear_line(here: Path, bundle_copy: Path, environment: dict[str, str]) -> None:
    write_images(Path("p"), 1)
    graph = bundle_copy / "image_encoder.onnx"
    graph.write_bytes(bytes(len(graph.read_bytes())))
    command = [*COMMAND, "p", "--bundle", str(bundle_copy), "--out", "out", "--engine", "ray", "--address", "local"]
    done = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "image_encoder.onnx" in line
    assert not Path("out").exists()


def test_no_cluster_is_one_clear_line(here: Path, environment: dict[str, str]) -> None:
    write_images(Path("p"), 1)
    command = [*COMMAND, "p", "--out", "out", "--engine", "ray", "--address", "127.0.0.1:1"]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --address 127.0.0.1:1: no cluster there"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("out").exists()
