"""onnxruntime sessions. No other file imports onnxruntime, and this one only when a session is opened."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.encoders.waiting import TRIAL_SECONDS, within
from sar_infer.errors import BundleError, DeviceError, install, reason_of

Device = str
"""``auto``, ``cpu``, ``cuda``, ``openvino``, or another provider of the installed onnxruntime, by its short name."""
MAIN_DEVICES = ("auto", "cpu", "cuda")
_CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_OPTIONS = {CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}
"""Full fp32, as on the CPU; no new search for the best convolution with every batch size."""
_SHORT = {"DmlExecutionProvider": "directml"}
_NOT_OURS = ("AzureExecutionProvider", "OpenVINOExecutionProvider")
"""One runs elsewhere; instead of the other, ``openvino.py`` runs OpenVINO itself."""
_WARNING, _FATAL = 2, 4
_CRASHES = ("FuseFp16InitializerToFp32NodeTransformer",)
"""Optimisations of onnxruntime 1.31 that end the process on some graphs in float16, such as CLIP's text tower."""


def open_session(path: Path, device: Device, threads: int | None = None, spin: bool = True) -> Any:
    """Open an ``onnxruntime.InferenceSession`` that is known to run on the device that was asked for.

    Args:
        path: ONNX file.
        device: ``cpu``; ``cuda`` or another provider, which fails if it is not available; ``auto`` takes CUDA if a
            driver is present and a session opens on it.
        threads: Threads inside an operator; None leaves it to onnxruntime, within the cores this process may use.
        spin: Let idle threads wait busily for the next operator: fastest for one run at a time, but it takes the cores
            from everything else.

    Raises:
        DeviceError: ``cuda`` or another provider was asked for and is not available.
        BundleError: onnxruntime does not accept the graph, or has not opened it within ``TRIAL_SECONDS``.
    """
    if device == "cpu":
        return _session(path, [_CPU], threads, spin)
    name = CUDA if device in MAIN_DEVICES else provider_of(device)
    obstacle = _cuda_obstacle() if name == CUDA else None
    if obstacle is None:
        missing = _preload_cuda() if name == CUDA else None
        with _quiet():
            session = _session(path, [(name, _OPTIONS.get(name, {})), _CPU], threads, spin)
        if provider(session) == name:
            return session
        obstacle = missing or f"{name} could not open the graph"
    if device != "auto":
        raise DeviceError(f"device {device} is not available: {obstacle}; use --device cpu")
    return _session(path, [_CPU], threads, spin)


class OnnxSession:
    """A session of onnxruntime as an ``engines.Session``."""

    def __init__(self, session: Any) -> None:
        import onnxruntime

        self._session, self._options = session, onnxruntime.RunOptions()
        self.provider = provider(session)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.ports = [(port.name, port.shape) for port in inputs], [(port.name, port.shape) for port in outputs]

    def run(self, name: str, batch: npt.NDArray[Any]) -> Floats:
        """Return the first output, as ``engines.Session`` says."""
        rows: Floats = self._session.run(None, {name: batch}, self._options)[0]
        return rows

    def stop(self) -> None:
        """Make the current runs and all later ones fail; a run ends between two operators."""
        self._options.terminate = True


def provider_of(device: Device) -> str:
    """Return the name that onnxruntime gives an execution provider.

    Raises:
        DeviceError: The installed onnxruntime does not have it.
    """
    import onnxruntime

    names: dict[str, str] = {
        _SHORT.get(name, name.removesuffix("ExecutionProvider").lower()): name
        for name in onnxruntime.get_available_providers()
        if name not in _NOT_OURS
    }
    if device not in names:
        raise DeviceError(
            f"device {device!r:.80}: expected auto, openvino, or one that onnxruntime {onnxruntime.__version__} has "
            f"here: {', '.join(sorted(names))}; other builds of onnxruntime have others"
        )
    return names[device]


def is_accelerator(device: Device) -> bool:
    """Return whether encoders may run elsewhere than on the CPU, so that one process should have them."""
    return device not in (*MAIN_DEVICES, "openvino") or expects_cuda(device)


def expects_cuda(device: Device) -> bool:
    """Return whether ``open_session`` would try CUDA first: it was asked for, or is built in and has a driver."""
    return device == "cuda" or (device == "auto" and _cuda_obstacle() is None)


def provider(session: Any) -> str:
    """Return the execution provider that a session prefers."""
    return str(session.get_providers()[0])


def _session(path: Path, providers: list[Any], threads: int | None, spin: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = _threads(threads)
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a block of memory for every batch size, and saves no time
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    try:
        return within(
            TRIAL_SECONDS,
            lambda: onnxruntime.InferenceSession(
                str(path), options, providers=providers, enable_fallback=0, disabled_optimizers=_CRASHES
            ),
            lambda: options.set_load_cancellation_flag(True),
        )
    except TimeoutError:
        raise BundleError(f"{path}: onnxruntime has not opened this graph within {TRIAL_SECONDS:g} s") from None
    except Exception as error:  # onnxruntime's own errors share no base class
        raise BundleError(f"{path}: onnxruntime does not accept this graph: {reason_of(error)}") from None


def run_options() -> Any:
    """Return an ``onnxruntime.RunOptions``; setting its ``terminate`` ends runs with it, between two operators."""
    import onnxruntime

    return onnxruntime.RunOptions()


def give_back_memory() -> None:
    """Return to the system what opening sessions took and freed, where the C library is glibc; it takes some 10 ms.

    onnxruntime parses a graph and packs its weights anew, and glibc keeps the memory of what it parsed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def usable_cores() -> int:
    """Return how many cores this process may use; a container may have only part of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(threads: int | None) -> int:
    """Return the threads to ask for; 0 is onnxruntime's own choice, which does not know a container's limit."""
    if threads is not None:
        return threads
    return usable_cores() if usable_cores() < (os.cpu_count() or 1) else 0


def _cuda_obstacle() -> str | None:
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} was built without it (install onnxruntime-gpu)"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    return None


def _preload_cuda() -> str | None:
    """Load the CUDA libraries that pip installed; return what onnxruntime prints about missing ones."""
    import onnxruntime

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    lines = printed.getvalue().strip().splitlines()
    return f"{lines[0]} ({install('cuda')})" if lines else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime from writing to stderr why a provider failed: ``open_session`` reports it once."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
