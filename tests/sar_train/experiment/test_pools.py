"""Where runs are worked off: processes that fail alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.blobs import write_blobs
from support.jobs import job

from sar_train.config.run import RunConfig
from sar_train.experiment import pools

QUICK: dict[str, Any] = {
    "method": "kgcoop", "sar": False, "shots": 2, "views": 1, "epochs": 1, "statistics": False,
    "protocol": "base-to-new",
}  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Settings of a short run, whose photos the first one encodes for all."""
    return RunConfig("demo", **QUICK, cache_dir=str(tmp_path_factory.mktemp("features")))


@pytest.fixture(scope="module")
def here(quick: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of the short run in this process."""
    outcome = pools.attempt(job(quick), tmp_path_factory.mktemp("here") / "run")
    assert isinstance(outcome, dict)
    return outcome


@pytest.mark.slow
def test_processes_give_what_this_process_gives_and_fail_or_die_alone(
    quick: RunConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    runs = {
        "good": job(quick),
        "bad": job(quick, data=str(tmp_path / "gone" / "photos")),
        "endless": job(quick, epochs=100_000),
    }
    outcomes = pools.local(2)([(run, tmp_path / name) for name, run in runs.items()])
    ended = dict(itertools.islice(((run.config.data, outcome) for run, outcome in outcomes), 2))
    assert "gone" in ended[runs["bad"].config.data]
    wait_for((tmp_path / "endless").exists)  # a process that dies while it is loaded is started again
    for run in runs_of(os.getpid()):
        run.kill()
    ((_, killed),) = outcomes
    assert "the process died (exit code -9)" in str(killed)
    here = request.getfixturevalue("here")  # now, so that photos have been encoded in the other process
    for key in ("metrics", "similarities"):
        assert ended["demo"][key] == here[key]  # type: ignore[index]


@pytest.mark.slow
def test_runs_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(
        "import dataclasses, sys\nfrom pathlib import Path\nfrom sar_train.config.run import RunConfig\n"
        "from sar_train.experiment import pools\nfrom sar_train.experiment.job import Job\n"
        "if __name__ == '__main__':\n"
        "    config = RunConfig('demo', method='coop', sar=False, epochs=5000, protocol='base-to-new')\n"
        "    for _ in pools.local(1)([(Job('custom', 'coop', config), Path(sys.argv[1]))]):\n        pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    sweep = subprocess.Popen([sys.executable, script, tmp_path / "run"], env=environment, start_new_session=True)
    try:
        runs = wait_for(lambda: runs_of(sweep.pid))
        assert runs, "no run was started"
        sweep.kill()
        sweep.wait()
        assert wait_for(lambda: not any(run.is_running() for run in runs)), "a run goes on alone"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()


def wait_for(check: Callable[[], Any], seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return answer


def runs_of(parent: int) -> list[psutil.Process]:
    """Return the processes of a sweep's runs."""
    return [child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())]


def test_an_error_that_is_not_ours_is_told_with_its_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = pools.attempt(job(write_blobs(tmp_path)), tmp_path / "a name\0 that no system takes")
    assert str(outcome).startswith("ValueError: ")
    assert "Traceback" in capfd.readouterr().err
