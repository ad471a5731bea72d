"""CLIP's towers as open_clip runs them: whole sequences through whole blocks, prompts put in between.

What our own towers are compared with. Nothing here knows of `Prompts`: tensors go in, unit rows come out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_train.clip.backbone import Backbone

NOTHING: Mapping[int, Tensor] = {}


@cache
def tokenizer() -> Any:
    """CLIP's."""
    return open_clip.get_tokenizer("ViT-B-32")


def encode_text(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """(C, D) unit rows of open_clip's own text tower."""
    rows: Tensor = backbone.model.encode_text(tokenizer()(list(texts)), normalize=True)
    return rows


def text_rows(
    backbone: Backbone,
    names: Sequence[str],
    context: Tensor,
    *,
    suffix_context: Tensor | None = None,
    suffix: str = ".",
    replace: Mapping[int, Tensor] = NOTHING,
    append: Mapping[int, Tensor] = NOTHING,
    share: float = 1.0,
) -> Tensor:
    """(C, D) unit rows of ``[start][context][name][suffix context][suffix][end]``, one name after the other.

    Args:
        backbone: whose text tower.
        names: C names.
        context: (M, W) or (C, M, W).
        suffix_context: (K, W) or (C, K, W).
        suffix: text behind the name.
        replace: vectors (M, W) or (C, M, W) by block, in front of which they take the first places behind the start.
        append: vectors by block, in front of which they are put behind the context, where there was nothing.
        share: of the replacing vectors.
    """
    suffix_context = context.new_zeros(0, context.shape[-1]) if suffix_context is None else suffix_context
    rows = [
        _text_row(
            backbone.model,
            [tokenizer().encode(text) for text in (name.replace("_", " "), suffix)],
            _of(context, i),
            _of(suffix_context, i),
            {layer: _of(vectors, i) for layer, vectors in replace.items()},
            {layer: _of(vectors, i) for layer, vectors in append.items()},
            share,
        )
        for i, name in enumerate(names)
    ]
    return normalize(torch.stack(rows), dim=-1)


def image_rows(
    backbone: Backbone, pixels: Tensor, append: Tensor | None = None, replace: Mapping[int, Tensor] = NOTHING
) -> Tensor:
    """(N, D) unit rows of open_clip's own image tower; hooks add tokens ahead of ln_pre and replace the last ones."""
    visual = backbone.model.visual
    with contextlib.ExitStack() as hooks:
        if append is not None:
            hooks.enter_context(_before(visual.ln_pre, append, 0))
        for layer, vectors in replace.items():
            hooks.enter_context(_before(visual.transformer.resblocks[layer], vectors, len(vectors)))
        return normalize(visual(pixels), dim=-1)


@contextlib.contextmanager
def _before(module: nn.Module, vectors: Tensor, dropped: int) -> Iterator[None]:
    """The module's input (N, T, W) loses its last ``dropped`` tokens and ends with ``vectors`` (M, W)."""

    def change(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens = inputs[0][:, : inputs[0].shape[1] - dropped]
        return torch.cat([tokens, vectors.expand(len(tokens), -1, -1)], 1), *inputs[1:]

    handle = module.register_forward_pre_hook(change)
    try:
        yield
    finally:
        handle.remove()


def _of(vectors: Tensor, i: int) -> Tensor:
    return vectors[i] if vectors.ndim == 3 else vectors


def _text_row(
    model: nn.Module,
    tokens: list[list[int]],
    context: Tensor,
    suffix_context: Tensor,
    replace: Mapping[int, Tensor],
    append: Mapping[int, Tensor],
    share: float,
) -> Tensor:
    name, suffix = tokens
    ids = [49406, *[0] * len(context), *name, *[0] * len(suffix_context), *suffix, 49407]
    end = len(ids) - 1
    x = model.token_embedding(torch.tensor([*ids, *[0] * (77 - len(ids))]))
    gap = 1 + len(context) + len(name)
    x = torch.cat([x[:1], context, x[1 + len(context) : gap], suffix_context, x[gap + len(suffix_context) :]])
    x, lead = x + model.positional_embedding, 1 + len(context)
    for layer, block in enumerate(model.transformer.resblocks):
        if layer in append:
            x = torch.cat([x[:lead], append[layer], x[lead:]])
            lead, end = lead + len(append[layer]), end + len(append[layer])
        if layer in replace:
            stop = 1 + len(replace[layer])
            x = torch.cat([x[:1], share * replace[layer] + (1 - share) * x[1:stop], x[stop:]])
        x = block(x[None], attn_mask=torch.full((len(x), len(x)), float("-inf")).triu(1))[0]
    row: Tensor = model.ln_final(x)[end] @ model.text_projection
    return row
