"""The arithmetic of open_clip's ``ResidualAttentionBlock`` in pieces, so that towers can share and skip positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of shared positions in one layer, each (heads, P, W / heads)."""


def project_heads(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of (B, T, W), each (B, heads, T, W / heads)."""
    attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
    return split_heads(project(block, x), attention.num_heads)


def project(block: nn.Module, x: Tensor) -> Tensor:
    """Map (…, W) to queries, keys and values side by side, (…, 3 W)."""
    attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
    return linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)  # type: ignore[operator]


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, T, 3 W) into three (B, heads, T, W / heads)."""
    query, key, value = (chunk.unflatten(-1, (heads, -1)).transpose(1, 2) for chunk in qkv.chunk(3, -1))
    return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, past: KeyValue | None, mask: Tensor | None = None) -> Tensor:
    """Compute causal attention over shared positions and each name's own tokens.

    Args:
        query: (B, heads, Q, d), the last Q of the T own positions.
        key: (B, heads, T, d).
        value: (B, heads, T, d).
        past: keys and values (heads, P, d) that every position sees; scored without copying them per name.
        mask: additive mask that broadcasts to (B, heads, Q, T), made here when None.

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
        mixed = scores.softmax(-1).to(value.dtype) @ value
    else:
        flat = query.transpose(0, 1).reshape(heads, batch * n_query, size)
        shared = (flat @ past[0].transpose(-2, -1)).unflatten(1, (batch, n_query)).transpose(0, 1)
        weights = torch.cat([shared, scores], -1).softmax(-1).to(value.dtype)
        n_past = past[0].shape[1]
        flat = weights[..., :n_past].transpose(0, 1).reshape(heads, batch * n_query, n_past)
        mixed = (flat @ past[1]).unflatten(1, (batch, n_query)).transpose(0, 1) + weights[..., n_past:] @ value
    return mixed.transpose(1, 2).flatten(2)


def finish_block(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """Apply output projection, both residuals and the MLP; ``x`` and ``mixed`` are (…, W)."""
    x = x + block.ls_1(block.attn.out_proj(mixed))  # type: ignore[operator,union-attr]
    added: Tensor = block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[operator]
    return x + added


def full_block(block: nn.Module, x: Tensor, queries: int) -> Tensor:
    """Apply one block without a mask to (N, T, W), and return the first ``queries`` positions, (N, Q, W).

    Written for the graph that it becomes: a product of two matrices and a bias is one operator, with more dimensions it
    is two, and torch's own attention becomes a dozen.
    """
    attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
    qkv = project(block, x.flatten(0, 1)).unflatten(0, x.shape[:2])
    query, key, value = split_heads(qkv, attention.num_heads)
    scores = query[:, :, :queries] / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    residual = x[:, :queries]
    return finish_block(block, residual.flatten(0, 1), mixed.flatten(0, 1)).view(residual.shape)
