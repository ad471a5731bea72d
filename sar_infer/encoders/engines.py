"""Opens and runs encoders by onnxruntime, or by OpenVINO for ``--device openvino``; no caller knows which."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.encoders import openvino, sessions
from sar_infer.encoders.sessions import MAIN_DEVICES, Device
from sar_infer.errors import BundleError, DeviceError, install

OPENVINO = "openvino"


class Session(Protocol):
    """An open graph; safe to share between threads."""

    @property
    def provider(self) -> str:
        """Return the name of the engine: an execution provider of onnxruntime, or OpenVINO."""

    @property
    def ports(self) -> tuple[list[tuple[str, Sequence[Any]]], list[tuple[str, Sequence[Any]]]]:
        """Name and shape of each input and each output; an axis of any size is not an int."""

    def run(self, name: str, batch: npt.NDArray[Any]) -> Floats:
        """Return the first output (N, ...) for a batch (N, ...) of the input of a name."""

    def stop(self) -> None:
        """Make the current run and all later ones fail."""


def check_device(device: Device) -> None:
    """Raise DeviceError if nothing installed here has the device; whether it works shows when a session opens."""
    if device == OPENVINO:
        if importlib.util.find_spec("openvino") is None:
            raise DeviceError(f"device openvino: OpenVINO is not installed; {install('openvino')}")
    elif device not in MAIN_DEVICES:
        sessions.provider_of(device)


def open_encoder(
    path: Path, device: Device, threads: int | None = None, spin: bool = True, precision: str = "fp32"
) -> Session:
    """Open the session of an encoder: a graph with one input, for one item or any number at once, and one output.

    Args:
        path: ONNX file.
        device: ``openvino``, or see ``sessions.open_session``.
        threads: Threads inside an operator; None: the cores that this process may use.
        spin: See ``sessions.open_session``.
        precision: See ``openvino.open_session``.

    Raises:
        DeviceError: The device is not available.
        BundleError: The graph is not accepted, or not opened in time; or it takes or gives something else.
    """
    check_device(device)
    session: Session
    if device == OPENVINO:
        session = openvino.open_session(path, threads, precision)
    else:
        session = sessions.OnnxSession(sessions.open_session(path, device, threads, spin))
    inputs, outputs = session.ports
    if len(inputs) != 1 or len(outputs) != 1:
        names = ", ".join(name for name, _ in (*inputs, *outputs))
        raise BundleError(f"{path}: expected a graph with one input and one output, got {names}; export it again")
    shapes = [shape for _, shape in (*inputs, *outputs)]
    if any(not shape or (isinstance(shape[0], int) and shape[0] != 1) for shape in shapes):
        raise BundleError(f"{path}: expected a first axis of 1 or of any size, got shapes {shapes}; export it again")
    return session


def run_encoder(session: Session, name: str, batch: npt.NDArray[Any]) -> Floats:
    """Return the output (N, ...) for N inputs; a graph whose batch is fixed at one runs once for each."""
    ((_, shape),) = session.ports[0]
    if shape[0] != 1:
        return session.run(name, batch)
    return np.concatenate([session.run(name, batch[row : row + 1]) for row in range(len(batch))])
