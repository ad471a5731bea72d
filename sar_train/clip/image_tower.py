"""CLIP's vision transformer with prompts: open_clip's ``VisionTransformer``, its parts called one by one.

The part before the first prompt, patches with their positions (`ImageTower.embed`), is shared by answers with and
without prompts. The last layer computes only the class token; its output is the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_train.clip.attention import full_block
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.errors import ConfigError


@dataclass(frozen=True)
class ImageTower:
    """The frozen parts of a vision transformer with a class token."""

    visual: VisionTransformer

    @property
    def width(self) -> int:
        """Return W, the size of a token vector."""
        return int(self.visual.class_embedding.shape[0])

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Return open_clip's ``ResidualAttentionBlock`` modules in order."""
        return list(self.visual.transformer.resblocks)

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Embed (N, 3, H, W) pixels as (N, T, W): class token and patches with positions, which no prompt changes."""
        patches = self.visual.conv1(pixels).flatten(2).transpose(1, 2)
        start = self.visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        embedded: Tensor = torch.cat([start, patches], 1) + self.visual.positional_embedding.to(patches.dtype)
        return embedded

    def __call__(self, prompts: Prompts, embedded: Tensor) -> Tensor:
        """Return (N, D) unit rows for the output of `embed`, differentiable in ``prompts``."""
        x, added = embedded, 0
        x, added = _insert(x, prompts.image.get(0), added)
        x = self.visual.ln_pre(x)
        *early, last = enumerate(self.blocks)
        for layer, block in early:
            if layer:
                x, added = _insert(x, prompts.image.get(layer), added)
            x = full_block(block, x, x.shape[1])
        x, added = _insert(x, prompts.image.get(last[0]) if last[0] else None, added)
        x = self.visual.ln_post(full_block(last[1], x, 1)[:, 0])
        rows: Tensor = x @ self.visual.proj
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        return normalize(rows, dim=-1)


def image_tower(visual: nn.Module) -> ImageTower | None:
    """Return the tower of an open_clip image encoder, None where it is not CLIP's vision transformer."""
    is_clip = (
        isinstance(visual, VisionTransformer)
        and visual.pool_type == "tok"
        and visual.attn_pool is None
        and isinstance(visual.proj, Tensor)
        and all(type(block).__name__ == "ResidualAttentionBlock" for block in visual.transformer.resblocks)
    )
    return ImageTower(visual) if is_clip else None


def _insert(x: Tensor, insertion: DeepPrompt | None, added: int) -> tuple[Tensor, int]:
    """Return the tokens (N, T, W) after an insertion, and how many of the last ones are prompts."""
    if insertion is None:
        return x, added
    count = insertion.vectors.shape[0]
    if insertion.mode == "append":
        return torch.cat([x, insertion.vectors.to(x.dtype).expand(x.shape[0], -1, -1)], 1), added + count
    if count > added:
        raise ConfigError(f"{count} vectors cannot replace {added} prompt positions of the image tower")
    mixed = insertion.mix(x[:, -count:])
    return torch.cat([x[:, :-count], mixed.expand(x.shape[0], -1, -1)], 1), added
