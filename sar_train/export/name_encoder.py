"""The text side as an ONNX graph with the prompt inside: (N, L) int64 ``tokens`` to (N, D) unit rows ``embedding``.

Prompts that are the same for all names are constants. Where a method makes a class's own prompts from its hand-crafted
embedding (TCP), the graph has two towers: a teacher reads the tokens behind the hand-crafted template, the method's
network turns the result into prompts, and the student reads the same tokens behind those. Where the teacher has another
text behind the name, that text's tokens take the place of the student's.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from sar_train.export.graph import trace
from sar_train.export.layout import Layout
from sar_train.export.padded_text import PaddedText
from sar_train.methods.base import Classes
from sar_train.training.prompted import PromptedCLIP


class NameEncoder(nn.Module):
    """``prompted.embed(names)`` for padded rows of tokens."""

    def __init__(self, prompted: PromptedCLIP, placed: Layout) -> None:
        super().__init__()
        tower = prompted.backbone.text
        self.method, self.placed = prompted.method, placed
        self.student = PaddedText(tower, placed.prompts)
        self.teacher = None if placed.teacher is None else PaddedText(tower, placed.teacher)
        self.exchanged = False
        if placed.teacher is not None and placed.teacher.suffix != placed.prompts.suffix:
            self.exchanged = True
            tail = [*tower.encode(placed.teacher.suffix), tower.end_token, 0]
            self.register_buffer("tail", torch.tensor(tail, device=prompted.backbone.device))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids, each row ending with the end token and padded with 0, to (N, D) unit rows."""
        prompts = self.placed.prompts
        if self.teacher is not None:
            read = self._exchange(tokens) if self.exchanged else tokens
            prompts = self.method.prompts(Classes((), self.teacher(read, self.placed.teacher)))
        rows: Tensor = self.student(tokens, prompts)
        return rows

    def _exchange(self, tokens: Tensor) -> Tensor:
        """(N, L) rows of name, student's text and end token to rows with the teacher's text."""
        tail: Tensor = self.get_buffer("tail")
        start = (tokens.argmax(-1, keepdim=True) - (self.student.tail - 1)).clamp(min=0)
        place = torch.arange(tokens.shape[1] + self.placed.longer, device=tokens.device)[None]
        behind = (place - start).clamp(max=len(tail) - 1)  # the last one is padding
        source = torch.where(place < start, place, tokens.shape[1] + behind)
        return torch.cat([tokens, tail.expand(tokens.shape[0], -1)], 1).gather(1, source)


def export_name_encoder(prompted: PromptedCLIP, placed: Layout) -> onnx.ModelProto:
    """The graph, for any number of names of any length that the tower has room for."""
    tower = prompted.backbone.text
    suffix = [*tower.encode(placed.prompts.suffix), tower.end_token]
    example = torch.tensor([[1, 2, *suffix], [1, *suffix, 0]], device=prompted.backbone.device)
    encoder = NameEncoder(prompted, placed).eval()
    return trace(encoder, example, input_name="tokens", dynamic={0: "batch", 1: "length"})
