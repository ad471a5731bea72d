"""CLIP's text tower with a shared prefix: exact, with gradients, and an order of magnitude cheaper.

The tower is causal and ``[start][context]`` is the same for all classes, so the keys and values of that prefix are
computed once per layer and every class pays for its own name tokens alone. Names are packed by length (`tokens.pack`),
so nothing is padded, and in the last layer only the end token goes through attention and MLP. The arithmetic is that of
open_clip's ``encode_text`` (ln_final at the end token, times text_projection), reordered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from sar_train.prompts import Prompts
from sar_train.tokens import Encode, PackedNames, pack, tokenise

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of the prefix in one layer, each (heads, P, W / heads)."""


@dataclass(frozen=True)
class TextTower:
    """The frozen parts of a CLIP text tower, whichever open_clip class they come from.

    Attributes:
        token_embedding: (vocabulary, W) look-up.
        positional_embedding: (context_length, W).
        blocks: open_clip's ``ResidualAttentionBlock`` in order.
        ln_final: the last LayerNorm.
        projection: (W, D).
        encode: tokenizer without start and end token.
        start_token, end_token: their ids; the end token is the largest id of the vocabulary.
    """

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    blocks: Sequence[nn.Module]
    ln_final: nn.Module
    projection: Tensor
    encode: Encode
    start_token: int
    end_token: int

    @property
    def width(self) -> int:
        """W, the size of a token vector."""
        return self.token_embedding.embedding_dim

    @property
    def context_length(self) -> int:
        """Positions that the tower has, 77 for CLIP."""
        return self.positional_embedding.shape[0]

    def room(self, prompts: Prompts) -> int:
        """Positions left for a name, its suffix and the end token."""
        return self.context_length - 1 - prompts.context.shape[0]

    def embed_text(self, text: str) -> Tensor:
        """(M, W) token vectors of a text, start and end token not included."""
        ids = torch.tensor(self.encode(text), dtype=torch.long, device=self.positional_embedding.device)
        vectors: Tensor = self.token_embedding(ids)
        return vectors.detach()

    def tokenise(self, names: Sequence[str], prompts: Prompts) -> list[list[int]]:
        """Token rows of names for these prompts; they stay valid while M and the suffix stay the same."""
        return tokenise(names, prompts.suffix, self.encode, end_token=self.end_token, room=self.room(prompts))

    def __call__(self, prompts: Prompts, names: PackedNames | Sequence[str]) -> Tensor:
        """(C, D) unit class embeddings in the order of ``names``, differentiable in ``prompts``."""
        packed = names if isinstance(names, PackedNames) else pack(self.tokenise(names, prompts))
        device = self.positional_embedding.device
        prefix = self.prefix(prompts)
        start = 1 + prompts.context.shape[0]
        x = self.token_embedding(packed.ids.to(device)) + self.positional_embedding[start + packed.positions.to(device)]
        ends = packed.ends.to(device)
        *early, last = zip(self.blocks, prefix, strict=True)
        for block, past in early:
            x = _packed_block(block, x, past, packed.groups, None)
        x = _packed_block(last[0], x, last[1], packed.groups, ends)
        rows = self.project(x)
        back = torch.empty_like(packed.order)
        back[packed.order] = torch.arange(len(back))
        return rows[back.to(device)]

    def prefix(self, prompts: Prompts) -> list[KeyValue]:
        """Keys and values of ``[start][context]`` for every layer."""
        start = self.token_embedding.weight[self.start_token][None]
        x = torch.cat([start, prompts.context.to(start.dtype)])
        x = (x + self.positional_embedding[: len(x)])[None]
        cached = []
        for block in self.blocks:
            query, key, value = project_heads(block, x)
            cached.append((key[0], value[0]))
            if len(cached) < len(self.blocks):
                x = finish_block(block, x, attend(query, key, value, None))
        return cached

    def project(self, x: Tensor) -> Tensor:
        """(…, W) outputs of the last block to (…, D) unit rows."""
        return normalize(self.ln_final(x) @ self.projection, dim=-1)


def project_heads(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of (B, T, W), each (B, heads, T, W / heads)."""
    attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
    qkv = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)  # type: ignore[operator]
    return split_heads(qkv, attention.num_heads)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 W) to three (B, heads, T, W / heads)."""
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, past: KeyValue | None, mask: Tensor | None = None) -> Tensor:
    """Causal attention over a shared past and the own tokens.

    Args:
        query: (B, heads, Q, d), the last Q of the T own positions.
        key: (B, heads, T, d).
        value: (B, heads, T, d).
        past: keys and values (heads, P, d) that every position sees; scored without copying them per name.
        mask: (Q, T) additive mask, made here when None.

    Returns:
        (B, Q, heads * d).
    """
    batch, heads, n_query, size = query.shape
    n_key = key.shape[2]
    query = query / math.sqrt(size)
    if mask is None and n_query > 1:
        mask = torch.full((n_query, n_key), float("-inf"), device=query.device).triu(1 + n_key - n_query)
    scores = query @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    if past is None:
        mixed = scores.softmax(-1) @ value
    else:
        flat = query.transpose(0, 1).reshape(heads, batch * n_query, size)
        shared = (flat @ past[0].transpose(-2, -1)).unflatten(1, (batch, n_query)).transpose(0, 1)
        weights = torch.cat([shared, scores], -1).softmax(-1)
        n_past = past[0].shape[1]
        flat = weights[..., :n_past].transpose(0, 1).reshape(heads, batch * n_query, n_past)
        mixed = (flat @ past[1]).unflatten(1, (batch, n_query)).transpose(0, 1) + weights[..., n_past:] @ value
    return mixed.transpose(1, 2).flatten(2)


def finish_block(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """Output projection, both residuals and the MLP; ``x`` and ``mixed`` are (…, W)."""
    x = x + block.ls_1(block.attn.out_proj(mixed))  # type: ignore[operator,union-attr]
    added: Tensor = block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[operator]
    return x + added


def _packed_block(
    block: nn.Module, x: Tensor, past: KeyValue, groups: Sequence[tuple[int, int]], ends: Tensor | None
) -> Tensor:
    """One block on packed tokens (N, W); with ``ends`` (C,) only those tokens are carried on, and (C, W) returned."""
    attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
    qkv = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)  # type: ignore[operator]
    mixed = []
    for (count, length), part in zip(groups, qkv.split([c * n for c, n in groups]), strict=True):
        query, key, value = split_heads(part.unflatten(0, (count, length)), attention.num_heads)
        if ends is not None:
            query = query[:, :, -1:]
        mixed.append(attend(query, key, value, past).flatten(0, 1))
    return finish_block(block, x if ends is None else x[ends], torch.cat(mixed))
