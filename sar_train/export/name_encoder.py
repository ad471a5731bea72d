"""The text side as an ONNX graph with the prompt inside: (N, L) int64 ``tokens`` to (N, D) unit rows ``embedding``.

Prompts that are the same for all names are constants. Where a method makes a class's own prompts from its hand-crafted
embedding (TCP), the graph has two towers: a teacher reads the tokens behind the hand-crafted template, the method's
network turns the result into prompts, and the student reads the same tokens behind those.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from sar_train.export.graph import trace
from sar_train.export.layout import Layout
from sar_train.export.padded_text import PaddedText
from sar_train.prompt_method import Classes
from sar_train.prompted import Prompted


class NameEncoder(nn.Module):
    """``prompted.embed(names)`` for padded rows of tokens."""

    def __init__(self, prompted: Prompted, placed: Layout) -> None:
        super().__init__()
        tower = prompted.backbone.text
        self.method, self.placed = prompted.method, placed
        self.student = PaddedText(tower, placed.prompts)
        self.teacher = None if placed.teacher is None else PaddedText(tower, placed.teacher)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids, each row ending with the end token and padded with 0, to (N, D) unit rows."""
        prompts = self.placed.prompts
        if self.teacher is not None:
            prompts = self.method.prompts(Classes((), self.teacher(tokens, self.placed.teacher)))
        rows: Tensor = self.student(tokens, prompts)
        return rows


def export_name_encoder(prompted: Prompted, placed: Layout) -> onnx.ModelProto:
    """The graph, for any number of names of any length that the tower has room for."""
    tower = prompted.backbone.text
    suffix = [*tower.encode(placed.prompts.suffix), tower.end_token]
    example = torch.tensor([[1, 2, *suffix], [1, *suffix, 0]], device=prompted.backbone.device)
    encoder = NameEncoder(prompted, placed).eval()
    return trace(encoder, example, input_name="tokens", dynamic={0: "batch", 1: "length"})
