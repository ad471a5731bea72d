"""The image side as an ONNX graph: (N, 3, size, size) float32 ``pixels`` to (N, D) unit rows ``embedding``."""

from __future__ import annotations

import dataclasses

import onnx
import torch
from torch import Tensor, nn

from sar_train.clip.image_tower import ImageTower
from sar_train.clip.prompts import Prompts
from sar_train.export.graph import OpenClipEncoder, trace
from sar_train.training.prompted import PromptedCLIP


class VisionTransformerEncoder(nn.Module):
    """CLIP's vision transformer in our own tower, whose last layer computes only the class token.

    Args:
        tower: the frozen tower.
        prompts: constants of the graph; None if the image side has none.
    """

    def __init__(self, tower: ImageTower, prompts: Prompts | None) -> None:
        super().__init__()
        self.tower, self.visual = tower, tower.visual
        prompts = prompts or Prompts(torch.empty(0, 0))
        image = {at: dataclasses.replace(item, vectors=item.vectors.detach()) for at, item in prompts.image.items()}
        self.prompts = dataclasses.replace(prompts, image=image)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels (N, 3, H, W) as unit rows (N, D)."""
        return self.tower(self.prompts, self.tower.embed(pixels))


def export_image_encoder(prompted: PromptedCLIP) -> onnx.ModelProto:
    """Export the graph, for any number of images of the backbone's own size."""
    backbone, tower = prompted.backbone, prompted.backbone.image
    encoder: nn.Module
    if tower is None:
        encoder = OpenClipEncoder(backbone.model, "encode_image")
    else:
        encoder = VisionTransformerEncoder(tower, prompted.image_prompts())
    size = backbone.preprocess.size
    example = torch.zeros(2, 3, size, size, device=backbone.device)
    return trace(encoder.eval(), example, input_name="pixels", dynamic={0: "batch"})
