from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.hostile_graphs import endless

from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.encoders.waiting import in_background, within


def never() -> None:
    raise AssertionError("stopped, though it ended in time")


def test_a_call_that_ends_in_time_gives_what_it_gives() -> None:
    assert within(60, lambda: 7, never) == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0, never)
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0).result(60)


def test_a_call_that_takes_too_long_is_stopped_and_given_up() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def call() -> None:
        stopped.wait()
        ended.set()

    with pytest.raises(TimeoutError):
        within(0.01, call, stopped.set)
    assert ended.is_set()


def test_a_native_call_that_cannot_be_stopped_does_not_keep_the_process(bundle_copy: Path) -> None:
    endless(bundle_copy)
    code = f"""
import numpy, onnxruntime, sys
from sar_infer.encoders.waiting import within

session = onnxruntime.InferenceSession({str(bundle_copy / IMAGE_ENCODER)!r}, providers=["CPUExecutionProvider"])
pixels = numpy.zeros((1, 3, 32, 32), "float32")
try:
    within(0.1, lambda: session.run(None, {{"pixels": pixels}}), lambda: None)
except TimeoutError:
    print("given up")
    sys.exit(2)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "given up\n", "")
