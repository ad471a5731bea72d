"""OpenVINO sessions. No other file imports openvino, and this one only when a session is opened.

A compiled graph is stored in ``~/.cache/sar-clip/openvino`` (``XDG_CACHE_HOME``), so that the next start does not
compile it again. Its name is a digest of the graph, OpenVINO's version, the processor and the settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import file_entry
from sar_infer.encoders.sessions import usable_cores
from sar_infer.encoders.waiting import TRIAL_SECONDS, within
from sar_infer.errors import BundleError, reason_of
from sar_infer.storage.files import write_atomically

_STORED = 8
"""Compiled graphs in the cache; the least recently written are removed."""
_DIGEST = hashlib.sha256


class OpenVinoSession:
    """A graph compiled by OpenVINO; see ``engines.Session``. Each run that is under way has a request of its own."""

    provider = "OpenVINO"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._idle: list[Any] = []
        self._running: set[Any] = set()
        self._lock, self._stopped = threading.Lock(), False
        self.ports = _ports(model.inputs), _ports(model.outputs)

    def run(self, name: str, batch: npt.NDArray[Any]) -> Floats:
        """Return the first output, as ``engines.Session`` says."""
        with self._lock:
            request = self._idle.pop() if self._idle else self._model.create_infer_request()
            self._running.add(request)
            if self._stopped:
                raise RuntimeError("it was stopped")
        try:
            rows: Floats = np.array(request.infer({name: batch})[0])  # its own array is written by the next run
            return rows
        finally:
            with self._lock:
                self._running.discard(request)
                self._idle.append(request)

    def stop(self) -> None:
        """Make the current runs and all later ones fail; a run ends between two operators."""
        with self._lock:
            self._stopped = True
            for request in self._running:
                request.cancel()


def open_session(path: Path, threads: int | None = None, precision: str = "fp32") -> OpenVinoSession:
    """Open a graph on the CPU.

    Args:
        path: ONNX file.
        threads: Threads inside an operator; None: the cores that this process may use.
        precision: ``bf16`` computes a float32 graph in bfloat16; anything else, in the graph's own precision.

    Raises:
        BundleError: OpenVINO does not accept the graph, or has not opened it within ``TRIAL_SECONDS``.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads or usable_cores()),
        "ENABLE_CPU_PINNING": "NO",  # workers would be pinned to the same cores
    }
    try:
        return OpenVinoSession(within(TRIAL_SECONDS, lambda: _compiled(path, settings), lambda: None))
    except TimeoutError:
        raise BundleError(f"{path}: OpenVINO has not opened this graph within {TRIAL_SECONDS:g} s") from None
    except Exception as error:  # it raises RuntimeError, and errors of each reader
        *_, cause = str(error).strip().splitlines() or [reason_of(error)]
        raise BundleError(f"{path}: OpenVINO does not accept this graph: {cause:.300}; use --device cpu") from None


def _compiled(path: Path, settings: dict[str, str]) -> Any:
    """Return a compiled graph, from the cache if it is there and undamaged."""
    import openvino
    from openvino.frontend import FrontEndManager

    core = openvino.Core()
    file = cache_file(path, [settings], ".blob")
    with contextlib.suppress(OSError, RuntimeError):  # not stored yet, or of a library that was exchanged
        content = file.read_bytes()
        digest, blob = content[:32], content[32:]
        if digest == _DIGEST(blob).digest():
            return core.import_model(blob, "CPU", settings)
    reader = FrontEndManager().load_by_framework("onnx")  # read_model tries the readers of all formats in turn
    model = core.compile_model(reader.convert(reader.load(str(path))), "CPU", settings)
    with contextlib.suppress(OSError, RuntimeError):  # a read-only home, or a full disk
        _store(file, model.export_model().getvalue())
    return model


def cache_file(path: Path, more: Sequence[object], suffix: str) -> Path:
    """Return the file of the cache for what is computed from a graph by this OpenVINO on this processor.

    Args:
        path: ONNX file.
        more: What else it depends on.
        suffix: Of the file.

    Raises:
        OSError: The graph cannot be read.
    """
    import openvino

    core = openvino.Core()
    key = [file_entry(path).sha256, openvino.__version__, core.get_property("CPU", "FULL_DEVICE_NAME")]
    key += [core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), os.environ.get("DNNL_MAX_CPU_ISA"), *more]
    return _folder() / (_DIGEST(repr(key).encode()).hexdigest() + suffix)


def make_cache() -> None:
    """Make the folder of the cache, for its owner alone."""
    _folder().mkdir(mode=0o700, parents=True, exist_ok=True)


def _store(file: Path, blob: bytes) -> None:
    make_cache()
    write_atomically(file, [_DIGEST(blob).digest(), blob])
    files = sorted(file.parent.glob("*.blob"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in files[_STORED:]:
        old.unlink()


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "sar-clip" / "openvino"


def _ports(ports: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    return [
        (port.any_name, [axis.get_length() if axis.is_static else None for axis in port.partial_shape])
        for port in ports
    ]
