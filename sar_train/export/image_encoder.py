"""The image tower as an ONNX graph: (N, 3, size, size) float32 ``pixels`` to (N, D) unit rows ``embedding``."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_train.backbone import Backbone
from sar_train.export.graph import trace


class ImageEncoder(nn.Module):
    """Whatever image tower open_clip gives the backbone, with unit rows at the end."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.visual = backbone.model.visual

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, D)."""
        return normalize(self.visual(pixels), dim=-1)  # type: ignore[operator]


def export_image_encoder(backbone: Backbone) -> onnx.ModelProto:
    """The graph, for any number of pictures of the backbone's own size."""
    size = backbone.preprocess.size
    example = torch.zeros(2, 3, size, size, device=backbone.device)
    return trace(ImageEncoder(backbone).eval(), example, input_name="pixels", dynamic={0: "batch"})
