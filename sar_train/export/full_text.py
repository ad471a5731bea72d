"""A text tower as it is, as an ONNX graph: (N, L) int64 ``tokens``, padded rows, to (N, D) unit rows ``embedding``."""

from __future__ import annotations

import onnx
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_train.clip.full_text import FullText
from sar_train.export.graph import trace


class FullTextEncoder(nn.Module):
    """The text tower that open_clip gives the backbone, followed by normalisation to unit rows."""

    def __init__(self, tower: FullText) -> None:
        super().__init__()
        self.model = tower.model

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode tokens (N, L) as unit rows (N, D)."""
        return normalize(self.model.encode_text(tokens), dim=-1)  # type: ignore[operator]


def export_full_text(tower: FullText) -> onnx.ModelProto:
    """Export the graph, for any number of texts of the tower's own length."""
    example = tower.tokens(["a", "b"], "{}").to(next(tower.model.parameters()).device)
    return trace(FullTextEncoder(tower).eval(), example, input_name="tokens", dynamic={0: "batch"})
