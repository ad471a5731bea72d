"""CLIP's text tower for padded rows of tokens, its shared prefix as constants: the form that goes into a graph.

`sar_train.clip.text_tower` does the same for names that are packed by length, with gradients. The tower is causal, so
the keys and values of the positions that all names share are constants, layer by layer, and a name costs its own tokens
only. From the layer on where classes have prompt positions of their own, these stand in front of each name's tokens.
Rows are padded with 0: no position sees what follows it, so what the padding computes never reaches the end token,
whose output is the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sar_train.clip.attention import KeyValue, attend, finish_block, project_heads
from sar_train.clip.prompts import Prompts, insert
from sar_train.clip.text_tower import TextTower


class PaddedText(nn.Module):
    """``tower(prompts, names)`` for padded rows.

    Args:
        tower: the frozen tower.
        prompts: what all names share is taken from them for good; what is each class's own comes with every call.
    """

    def __init__(self, tower: TextTower, prompts: Prompts) -> None:
        super().__init__()
        self.tower = tower
        self.token_embedding = tower.token_embedding
        self.blocks = nn.ModuleList(tower.blocks)
        self.tail = tower.tail(prompts)
        self.register_buffer("positions", tower.positional_embedding.detach().clone())
        prefix = tower.prefix(prompts)
        for layer, (key, value) in enumerate(prefix.past):
            self.register_buffer(f"prefix_key_{layer}", key.detach().clone())
            self.register_buffer(f"prefix_value_{layer}", value.detach().clone())
        self.register_buffer("own", None if prefix.own is None else prefix.own.detach().clone())

    def forward(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """(N, L) token ids, each row ending with the end token and padded with 0, to (N, D) unit rows.

        In the last layer only the end token, the largest id of the vocabulary, asks and is carried on.
        """
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        x, ends = self._embed(tokens, prompts)
        lead, last = 0, len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if prompts.first_class_specific_layer is not None and layer >= prompts.first_class_specific_layer:
                x, lead = self._change(x, lead, layer, prompts)
            query, key, value = project_heads(block, x)
            mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
            if layer < last:
                x = finish_block(block, x, attend(query, key, value, self._past(layer), mask))
        ends = ends + lead
        mixed = attend(query[rows, :, ends, None], key, value, self._past(last), mask[ends, None, None])
        return self.tower.project(finish_block(self.blocks[last], x[rows, ends], mixed[:, 0]))

    def _embed(self, tokens: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """(N, L + K, W) input of the first block, and (N,) places of the end tokens in it."""
        x, ends = self.token_embedding(tokens), tokens.argmax(-1)
        first, length = 1 + prompts.n_context, tokens.shape[1] + prompts.n_suffix_context
        if prompts.suffix_context is not None:
            gap = prompts.n_suffix_context
            behind = prompts.suffix_context.to(x.dtype).expand(tokens.shape[0], -1, -1)
            place = torch.arange(length, device=tokens.device)[None]
            start = (ends - (self.tail - 1)).clamp(min=0)[:, None]
            inside = (place >= start) & (place < start + gap)
            outside = torch.where(place < start, place, place - gap)
            source = torch.where(inside, tokens.shape[1] + place - start, outside)
            x = torch.cat([x, behind], 1).gather(1, source[..., None].expand(-1, -1, x.shape[-1]))
            ends = ends + gap
        return x + self.positions[first : first + length], ends  # type: ignore[index]

    def _change(self, x: Tensor, lead: int, layer: int, prompts: Prompts) -> tuple[Tensor, int]:
        """Rows (N, T, W) led by ``lead`` prompt positions, after what enters in front of a layer."""
        if layer == prompts.first_class_specific_layer:
            own: Tensor = self.get_buffer("own")
            if prompts.context.ndim == 3:
                own = prompts.context + self.positions[1 : 1 + prompts.n_context]  # type: ignore[index]
            x, lead = torch.cat([own.expand(x.shape[0], -1, -1), x], 1), own.shape[-2]
        if layer not in prompts.text:
            return x, lead
        changed = insert(x[:, :lead], prompts.text[layer])
        return torch.cat([changed, x[:, lead:]], 1), changed.shape[1]

    def _past(self, layer: int) -> KeyValue:
        return self.get_buffer(f"prefix_key_{layer}"), self.get_buffer(f"prefix_value_{layer}")
