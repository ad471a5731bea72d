"""How `sar-mini` is stored: token embeddings as INT8 with one scale a row, everything else as float16."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import torch as tensors
from torch import Tensor, nn

from sar_train.errors import BackboneError

TABLE = "token_embedding.weight"


def quantise_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """INT8 rows and their float32 scales: ``table[i]`` is about ``rows[i] * scales[i]`` (V, W), (V,)."""
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
    if not path.is_file():
        raise BackboneError(f"the weights of sar-mini are missing: expected {path}; reinstall the package")
    state = tensors.load_file(path)
    scales = state.pop(f"{TABLE}.scale")
    table = state.pop(f"{TABLE}.int8").float() * scales[:, None]
    expanded = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    model.load_state_dict(expanded | {TABLE: table})
