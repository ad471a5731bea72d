"""OpenAI's weights, which are published as TorchScript archives.

``torch.jit.load`` runs code that an archive holds, so only OpenAI's own files are loaded: those with the SHA-256 in the
address of each.
"""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from sar_infer.bundle.manifest import file_entry
from sar_train.errors import BackboneError

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's archives that are settings."""
_CONVERT = (
    "import torch; state = torch.jit.load({source!r}, map_location='cpu').state_dict(); "
    "[state.pop(key, None) for key in {dropped!r}]; torch.save(state, {target!r})"
)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in f"/{name}" for name in archive.namelist())


@functools.cache
def published_digests() -> frozenset[str]:
    """Return the SHA-256 of each archive that OpenAI publishes, from the addresses that open_clip lists."""
    addresses = (open_clip.get_pretrained_url(model, "openai") for model in open_clip.list_openai_models())
    return frozenset(address.split("/")[-2] for address in addresses)


def load_archive(path: Path) -> dict[str, Tensor]:
    """Return the weights of one of OpenAI's archives by name.

    Raises:
        BackboneError: The archive is another; says how to convert it.
        OSError: It cannot be read.
    """
    if file_entry(path).sha256 not in published_digests():
        target = path.with_suffix(".state.pt")
        line = _CONVERT.format(source=str(path), dropped=NOT_WEIGHTS, target=str(target))
        raise BackboneError(
            f"{path}: a TorchScript archive, and none of OpenAI's files; reading it runs code in it. If you "
            f'trust it, convert it with: python -c "{line}" and pass --pretrained {target}'
        )
    archive = torch.jit.load(path, map_location="cpu")
    return {name: tensor for name, tensor in archive.state_dict().items() if name not in NOT_WEIGHTS}
