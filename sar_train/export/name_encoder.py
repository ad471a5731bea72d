"""The text tower as an ONNX graph with the prompt inside: (N, L) int64 ``tokens`` to (N, D) unit rows ``embedding``.

``[start][context]`` is the same for all names and the tower is causal, so the keys and values of those 1 + M positions
are constants of the graph, layer by layer, and a name costs its own tokens only (`sar_train.towers` does the same with
gradients). Rows are padded with 0: no position sees what follows it, so what the padding computes never reaches the end
token, whose output is the answer.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from sar_train.backbone import Backbone
from sar_train.export.graph import trace
from sar_train.prompts import Prompts
from sar_train.towers import TextTower, attend, finish_block, project_heads


class NameEncoder(nn.Module):
    """``tower(prompts, names)`` for padded rows of tokens."""

    def __init__(self, tower: TextTower, prompts: Prompts) -> None:
        super().__init__()
        self.tower = tower
        self.token_embedding = tower.token_embedding
        self.blocks = nn.ModuleList(tower.blocks)
        start = 1 + prompts.context.shape[0]
        self.register_buffer("positions", tower.positional_embedding[start:].detach().clone())
        for layer, (key, value) in enumerate(tower.prefix(prompts)):
            self.register_buffer(f"prefix_key_{layer}", key.detach().clone())
            self.register_buffer(f"prefix_value_{layer}", value.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids, each row ending with the end token and padded with 0, to (N, D) unit rows.

        In the last layer only the end token, the largest id of the vocabulary, asks and is carried on.
        """
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        ends = tokens.argmax(-1)
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positions[:length]  # type: ignore[index]
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        *early, last = range(len(self.blocks))
        for layer in early:
            query, key, value = project_heads(self.blocks[layer], x)
            x = finish_block(self.blocks[layer], x, attend(query, key, value, self._past(layer), mask))
        query, key, value = project_heads(self.blocks[last], x)
        mixed = attend(query[rows, :, ends, None], key, value, self._past(last), mask[ends, None, None])
        return self.tower.project(finish_block(self.blocks[last], x[rows, ends], mixed[:, 0]))

    def _past(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"prefix_key_{layer}"), self.get_buffer(f"prefix_value_{layer}")


def export_name_encoder(backbone: Backbone, prompts: Prompts) -> onnx.ModelProto:
    """The graph, for any number of names of any length that the tower has room for."""
    example = torch.tensor([[1, 2, backbone.text.end_token], [1, backbone.text.end_token, 0]], device=backbone.device)
    encoder = NameEncoder(backbone.text, prompts).eval()
    return trace(encoder, example, input_name="tokens", dynamic={0: "batch", 1: "length"})
