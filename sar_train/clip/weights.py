"""Weights of a backbone from a file: OpenAI's own archives among them, and what to say when they do not fit."""

from __future__ import annotations

from pathlib import Path

import open_clip
from torch import nn

from sar_train.clip import torchscript
from sar_train.errors import BackboneError

OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
"""Entries that only OpenAI's checkpoints have; they are not weights."""


def load_openai(model: nn.Module, name: str, path: Path) -> None:
    """Fill a model from OpenAI's TorchScript archive; none of the code in it is run (see `sar_train.clip.torchscript`).

    Raises:
        BackboneError: the archive cannot be read or does not fit, or the model has GELU where these weights were
            trained with QuickGELU (open_clip would take them and classify worse without a word).
    """
    if not (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        raise BackboneError(
            f"{path} holds OpenAI's weights, which were trained with QuickGELU, but {name} has GELU: "
            f"use --backbone {name}-quickgelu"
        )
    state = torchscript.load_tensors(path)
    try:
        model.load_state_dict({key: tensor for key, tensor in state.items() if key not in OPENAI_KEYS})
    except RuntimeError as error:
        raise BackboneError(explain(name, str(path), error)) from error


def explain(name: str, pretrained: str | None, error: Exception) -> str:
    """One line for whatever open_clip raised while loading."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if pretrained is None:
        return f"backbone {name}: cannot be built ({reason})"
    if Path(pretrained).exists():
        return f"backbone {name}: weights {pretrained} do not fit ({reason})"
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        return (
            f"backbone {name}: weights {pretrained!r} are neither a file nor a known tag; "
            f"tags: {', '.join(tags) or 'none'}"
        )
    return (
        f"backbone {name}: weights {pretrained!r} could not be downloaded ({reason}); download them on a machine with "
        "network and pass the file with --pretrained FILE"
    )
