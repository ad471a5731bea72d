"""Where runs are worked off: processes that fail alone, and a real Ray cluster of two nodes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from support.jobs import job, write_blobs

from sar_train.config import RunConfig
from sar_train.errors import ConfigError
from sar_train.experiment import pools

QUICK = RunConfig("demo", method="kgcoop", sar=False, epochs=1, protocol="base-to-new")


@pytest.mark.slow
def test_processes_give_what_this_process_gives_and_fail_alone(tmp_path: Path) -> None:
    good, bad = job(QUICK), job(QUICK, data=str(tmp_path / "gone" / "photos"))
    found = {j.config.data: o for j, o in pools.local(2, 1)([(good, tmp_path / "good"), (bad, tmp_path / "bad")])}
    assert isinstance(found[bad.config.data], str)
    assert "gone" in found[bad.config.data]
    here = pools.attempt(good, tmp_path / "here", 1)
    assert isinstance(here, dict)
    assert found[good.config.data]["metrics"] == here["metrics"]  # type: ignore[index]
    assert found[good.config.data]["similarities"] == here["similarities"]  # type: ignore[index]


@pytest.mark.slow
def test_a_killed_process_is_one_failure(tmp_path: Path) -> None:
    def kill_child() -> None:
        for _ in range(600):
            time.sleep(0.05)
            for entry in Path("/proc").glob("[0-9]*/stat"):
                try:
                    fields = entry.read_text().rsplit(")", 1)[1].split()
                    spawned = b"spawn_main" in (entry.parent / "cmdline").read_bytes()
                except OSError:
                    continue
                if int(fields[1]) == os.getpid() and spawned:
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill_child)
    killer.start()
    ((_, outcome),) = pools.local(1, 1)([(job(QUICK), tmp_path / "run")])
    killer.join()
    assert isinstance(outcome, str)
    assert "the process died (exit code -9)" in outcome


def test_an_error_that_is_not_ours_is_told_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pools, "execute", lambda *_, **__: 1 / 0)
    assert pools.attempt(job(write_blobs(tmp_path)), tmp_path / "run", 1) == "ZeroDivisionError: division by zero"
    assert "Traceback" in capfd.readouterr().err


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'sar-clip[ray]'")

CLUSTER = """
    import warnings, sys
    warnings.simplefilter("ignore")
    from pathlib import Path
    from ray.cluster_utils import Cluster
    from sar_train.config import RunConfig
    from sar_train.experiment import pools
    from sar_train.experiment.job import Job

    if __name__ == "__main__":
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        import ray
        pool = pools.on_ray(cluster.address, 1)
        print("nodes", len([n for n in ray.nodes() if n["Alive"]]))
        quick = RunConfig("demo", method="kgcoop", sar=False, epochs=1, protocol="base-to-new")
        gone = RunConfig("/gone/photos", method="kgcoop", sar=False)
        for job, outcome in pool([(Job("custom", c.data, c), Path("unused")) for c in (quick, gone)]):
            print(job.name, outcome["metrics"] if isinstance(outcome, dict) else outcome)
        ray.shutdown()
        cluster.shutdown()
"""


@needs_ray
@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same(tmp_path: Path) -> None:
    script = tmp_path / "cluster.py"
    script.write_text(textwrap.dedent(CLUSTER))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here = pools.attempt(job(QUICK), tmp_path / "here", 1)
    assert "nodes 2" in done.stdout
    assert f"demo {here['metrics']}" in done.stdout  # type: ignore[index]
    assert "/gone/photos: no such file or folder" in done.stdout


@needs_ray
def test_no_cluster_is_one_clear_line() -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore")
        from sar_train.experiment import pools
        try:
            pools.on_ray("127.0.0.1:1", 1)
        except Exception as error:
            print(type(error).__name__, error)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.startswith("ConfigError --ray 127.0.0.1:1: no cluster there"), done.stdout + done.stderr[-500:]


def test_without_ray_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'sar-clip\[ray\]'"):
        pools.on_ray("auto", 1)
