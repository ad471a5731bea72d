"""The files of `sar-mini`: token embeddings as INT8 with one scale a row, everything else as float16.

`sar-mini-vit` stores only what it has learned; its text side and the frozen stages of its stem are `sar-mini`'s.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import torch as tensors
from torch import Tensor, nn

from sar_train.errors import BackboneError

TABLE = "token_embedding.weight"
_TRUNK, _STEM = "visual.trunk.", "visual.conv1."


def quantise_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return INT8 rows (V, W) and float32 scales (V,): ``table[i]`` is about ``rows[i] * scales[i]``."""
    scales = table.abs().amax(1).clamp_min(1e-12).half().float() / 127
    return (table / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def save(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights of an open_clip model."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    rows, scales = quantise_rows(state.pop(TABLE))
    stored = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    stored |= {f"{TABLE}.int8": rows, f"{TABLE}.scale": scales, "logit_scale": state["logit_scale"]}
    path.write_bytes(tensors.save(stored, metadata))


def load(model: nn.Module, path: Path) -> None:
    """Read weights into an open_clip model, expanded to float32.

    Raises:
        BackboneError: the file is missing or does not fit.
    """
    model.load_state_dict(_read(path))


def save_vit(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the learned part of `sar-mini-vit` as float16: its image side without the frozen stages of its stem."""
    state = {name: t for name, t in model.state_dict().items() if _is_learned(name)}
    path.write_bytes(tensors.save({name: t.detach().half().contiguous() for name, t in state.items()}, metadata))


def load_shared(model: nn.Module, path: Path) -> None:
    """Copy text side and frozen stages of `sar-mini`, whose weights lie at ``path``, into a `sar-mini-vit`.

    Raises:
        BackboneError: the file is missing.
    """
    state = {name.replace(_TRUNK, _STEM): tensor for name, tensor in _read(path).items()}
    model.load_state_dict({name: state[name] for name in model.state_dict() if not _is_learned(name)}, strict=False)


def load_vit(model: nn.Module, shared: Path, learned: Path) -> None:
    """Read a whole `sar-mini-vit`: `sar-mini`'s weights ``shared`` and its own ``learned``.

    Raises:
        BackboneError: a file is missing.
    """
    load_shared(model, shared)
    rest = {name: tensor for name, tensor in model.state_dict().items() if not _is_learned(name)}
    model.load_state_dict(rest | _expanded(_file(learned)))


def _is_learned(name: str) -> bool:
    return name.startswith("visual.") and (not name.startswith(_STEM) or name.startswith(f"{_STEM}patches."))


def _read(path: Path) -> dict[str, Tensor]:
    state = _file(path)
    scales = state.pop(f"{TABLE}.scale")
    table = state.pop(f"{TABLE}.int8").float() * scales[:, None]
    return _expanded(state) | {TABLE: table}


def _file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BackboneError(f"the weights of {path.stem} are missing: expected {path}; reinstall the package")
    return tensors.load_file(path)


def _expanded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
