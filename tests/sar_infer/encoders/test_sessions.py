from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from sar_infer.artefact.manifest import IMAGE_ENCODER
from sar_infer.encoders import sessions
from sar_infer.errors import BundleError, DeviceError

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def graph(bundle_path: Path) -> Path:
    return bundle_path / IMAGE_ENCODER


def machine(
    monkeypatch: pytest.MonkeyPatch, *, built: bool = True, driver: bool = True, works: bool, prints: str = ""
) -> None:
    """Make this machine look like another one; ``works``: a session asked for CUDA gets it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA] * built + ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write(prints), raising=False)
    real = onnxruntime.InferenceSession

    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    def session(path: str, options: object, *, providers: list, **settings: object) -> object:
        cpu = real(path, options, providers=["CPUExecutionProvider"], **settings)
        asked = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        return SimpleNamespace(get_providers=lambda: asked if works else cpu.get_providers())

    monkeypatch.setattr(sessions.ctypes, "CDLL", load)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


def test_cpu(graph: Path) -> None:
    assert sessions.provider(sessions.open_session(graph, "cpu")) == "CPUExecutionProvider"


def test_cuda_where_it_works(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, works=True)
    for device in ("cuda", "auto"):
        assert sessions.provider(sessions.open_session(graph, device)) == CUDA
    assert sessions.provider(sessions.open_session(graph, "cpu")) == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"built": False}, "was built without it"),
        ({"driver": False}, "no NVIDIA driver on this machine"),
        ({}, "onnxruntime found no usable GPU"),
        ({"prints": "Failed to load libcudnn\nmore\n"}, r"Failed to load libcudnn \(pip install 'sar-clip\[cuda\]'\)"),
    ],
)
def test_cuda_is_never_replaced_silently(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], settings: dict, reason: str
) -> None:
    machine(monkeypatch, works=False, **settings)
    with pytest.raises(DeviceError, match=f"device cuda is not available: .*{reason}.*; use --device cpu"):
        sessions.open_session(graph, "cuda")
    assert sessions.provider(sessions.open_session(graph, "auto")) == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


def test_a_driver_without_libraries(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real onnxruntime tries and fails, and says nothing of its own on either stream."""
    if CUDA not in onnxruntime.get_available_providers() or sessions._cuda_obstacle() is None:
        pytest.skip("needs an onnxruntime with CUDA on a machine without")
    monkeypatch.setattr(sessions.ctypes, "CDLL", lambda name: None)
    with pytest.raises(DeviceError, match="found no usable GPU"):
        sessions.open_session(graph, "cuda")
    assert sessions.provider(sessions.open_session(graph, "auto")) == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_onnxruntime_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="onnxruntime does not accept this graph") as caught:
        sessions.open_session(tmp_path / "m.onnx", "cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_threads(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions.open_session(graph, "cpu", 3).get_session_options().intra_op_num_threads == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert sessions.open_session(graph, "cpu").get_session_options().intra_op_num_threads == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert sessions.open_session(graph, "cpu").get_session_options().intra_op_num_threads == 0


def test_a_graph_that_takes_too_long_to_open_is_refused(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, **named: opened.wait(60))
    monkeypatch.setattr(sessions, "TRIAL_SECONDS", 0.01)
    with pytest.raises(BundleError, match=r"onnxruntime has not opened this graph within 0\.01 s"):
        sessions.open_session(graph, "cpu")
    opened.set()


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="of glibc alone")
def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    code = (
        "import psutil; from sar_infer.encoders.sessions import give_back_memory as give;"
        "held = [bytes(1000) for _ in range(10**5)]; held = held[::1000];"
        "me = psutil.Process(); before = me.memory_info().rss; give(); print(before - me.memory_info().rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 70 * 2**20
