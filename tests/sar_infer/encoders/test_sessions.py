from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.cuda import CUDA, with_cuda

from sar_infer import Classifier
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.encoders import sessions
from sar_infer.errors import BundleError, DeviceError


@pytest.fixture
def graph(bundle_path: Path) -> Path:
    return bundle_path / IMAGE_ENCODER


def test_cuda_where_it_works(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, works=True)
    for device in ("cuda", "auto"):
        assert sessions.provider(sessions.open_session(graph, device)) == CUDA
    assert sessions.provider(sessions.open_session(graph, "cpu")) == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"built": False}, "built without"),
        ({"driver": False}, "NVIDIA driver"),
        ({}, "CUDAExecutionProvider could not open"),
        ({"prints": "Failed to load libcudnn\nmore\n"}, r"libcudnn .*pip install .\.\[cuda\]"),
    ],
)
def test_cuda_is_never_replaced_silently(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], settings: dict, reason: str
) -> None:
    with_cuda(monkeypatch, works=False, **settings)
    with pytest.raises(DeviceError, match=f"{reason}.* --device cpu"):
        sessions.open_session(graph, "cuda")
    assert sessions.provider(sessions.open_session(graph, "auto")) == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


def test_a_driver_without_libraries(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real onnxruntime tries and fails, and says nothing of its own on either stream."""
    if CUDA not in onnxruntime.get_available_providers() or sessions.expects_cuda("auto"):
        pytest.skip("needs an onnxruntime with CUDA on a machine without")
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    with pytest.raises(DeviceError, match="CUDAExecutionProvider could not open"):
        sessions.open_session(graph, "cuda")
    assert sessions.provider(sessions.open_session(graph, "auto")) == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_onnxruntime_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"m\.onnx") as caught:
        sessions.open_session(tmp_path / "m.onnx", "cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away there")
def test_threads(graph: Path) -> None:
    def threads(count: int | None = None) -> int:
        return int(sessions.open_session(graph, "cpu", count).get_session_options().intra_op_num_threads)

    cores = os.sched_getaffinity(0)
    assert threads(3) == 3
    assert threads() == (len(cores) if len(cores) < (os.cpu_count() or 1) else 0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert threads() == (1 if os.cpu_count() != 1 else 0)
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_graph_that_takes_too_long_to_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    monkeypatch.setattr(sessions, "TRIAL_SECONDS", 0.05)
    writer = threading.Timer(0.2, lambda: os.close(os.open(tmp_path / "pipe.onnx", os.O_WRONLY)))
    writer.start()
    with pytest.raises(BundleError, match=r"within 0\.05 s"):
        sessions.open_session(tmp_path / "pipe.onnx", "cpu")
    writer.join()


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="of glibc alone")
def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    code = (
        "import psutil; from sar_infer.encoders.sessions import give_back_memory as give;"
        "held = [bytes(1000) for _ in range(10**5)]; held = held[::1000];"
        "me = psutil.Process(); before = me.memory_info().rss; give(); print(before - me.memory_info().rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 70 * 2**20


def test_a_provider_that_onnxruntime_does_not_have_names_those_that_it_has() -> None:
    with pytest.raises(
        DeviceError, match=r"device 'coreml': expected auto, openvino, or one that onnxruntime .* has here: .*cpu"
    ):
        Classifier(device="coreml")


def test_another_provider_has_to_pass_the_self_test(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a provider that computes as the CPU does, and of one whose rows are a little off."""
    real = onnxruntime.InferenceSession

    def session(path: str, options: object, *, providers: list, **settings: object) -> Any:
        inner = real(path, options, providers=["CPUExecutionProvider"], **settings)
        run = lambda *args: [inner.run(*args)[0] * scale]  # noqa: E731
        ports = {"get_inputs": inner.get_inputs, "get_outputs": inner.get_outputs}
        return SimpleNamespace(run=run, get_providers=lambda: [providers[0][0]], **ports)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CoreMLExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    scale = np.float32(1)
    assert Classifier.open(bundle_path, device="coreml").start() == "CoreMLExecutionProvider"
    scale = np.float32(0.9999)
    with pytest.raises(BundleError, match=r"expected at least 0\.99999\): device coreml computes it differently"):
        Classifier.open(bundle_path, device="coreml")
