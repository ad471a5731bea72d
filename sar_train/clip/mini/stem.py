"""The first stages of `sar-mini`'s image tower, which take the place of `sar-mini-vit`'s patch convolution.

A vision transformer whose patches are those of a CNN's feature map is the hybrid of Dosovitskiy et al. 2021, section
3.1. The stages are frozen and have `sar-mini`'s weights; only the patch projection after them is learned.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

STAGES = 5
"""EfficientNet-Lite0's stages up to stride 16."""
CHANNELS = 112
"""Channels after them."""


class Stem(nn.Module):
    """(N, 3, S, S) pixels to (N, width, S / 32, S / 32), as the convolution that it replaces.

    Attributes:
        conv_stem, bn1, blocks: the frozen stages, under timm's names.
        patches: the learned projection of 2 x 2 positions of the feature map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        trunk: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.conv_stem, self.bn1, self.blocks = trunk.conv_stem, trunk.bn1, trunk.blocks[:STAGES]
        self.patches = nn.Conv2d(CHANNELS, width, kernel_size=2, stride=2, bias=False)
        self.train(mode=self.training)
        for module in self._frozen:
            module.requires_grad_(requires_grad=False)

    @property
    def _frozen(self) -> tuple[nn.Module, ...]:
        return self.conv_stem, self.bn1, self.blocks

    def train(self, mode: bool = True) -> Stem:
        """Set the mode as usual, but leave the frozen stages at their stored batch statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def maps(self, pixels: Tensor) -> Tensor:
        """Turn (N, 3, S, S) pixels into the feature map (N, 112, S / 16, S / 16)."""
        features: Tensor = self.blocks(self.bn1(self.conv_stem(pixels)))
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the patches (N, width, S / 32, S / 32)."""
        patches: Tensor = self.patches(self.maps(pixels))
        return patches
