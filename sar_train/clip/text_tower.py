"""CLIP's text tower with a shared prefix: exact, with gradients, and an order of magnitude cheaper.

The tower is causal and ``[start][context]`` is the same for all classes, so the keys and values of that prefix are
computed once per layer and every class costs only its own name tokens. Names are packed by length (`tokens.pack`),
so next to nothing is padded, and in the last layer only the end token goes through attention and MLP. Deep prompts that
all classes share stay in the prefix; from the layer on where classes have prompts of their own, the prompt positions
join each name's tokens, and only the start token is still shared. The arithmetic is that of open_clip's ``encode_text``
(ln_final at the end token, times text_projection), reordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_train.clip.attention import KeyValue, attend, finish_block, project, project_heads, split_heads
from sar_train.clip.prompts import DeepPrompt, Prompts, insert
from sar_train.clip.tokens import Encode, PackedTokens, pack
from sar_train.errors import ClassNameError


@dataclass(frozen=True)
class Prefix:
    """The positions that all names share.

    Attributes:
        past: keys and values of the shared positions, layer by layer.
        own: (M, W) or (C, M, W) prompt positions at the input of the layer from which each class has its own.
    """

    past: Sequence[KeyValue]
    class_context: Tensor | None


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
        start_token: its id.
        end_token: its id, the largest of the vocabulary.
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
        """Return W, the size of a token vector."""
        return self.token_embedding.embedding_dim

    @property
    def context_length(self) -> int:
        """Return the number of positions of the tower, 77 for CLIP."""
        return self.positional_embedding.shape[0]

    def room(self, prompts: Prompts) -> int:
        """Return the positions left for a name, what follows it, and the end token."""
        return self.context_length - 1 - prompts.n_context

    def fits(self, name: str, prompts: Prompts) -> bool:
        """Return True if there is room for a name, written with spaces."""
        return len(self.encode(name + prompts.suffix)) + 1 + prompts.n_suffix_context <= self.room(prompts)

    def embed_text(self, text: str) -> Tensor:
        """Return (M, W) token vectors of a text, without start and end token."""
        ids = torch.tensor(self.encode(text), dtype=torch.long, device=self.positional_embedding.device)
        vectors: Tensor = self.token_embedding(ids)
        return vectors.detach()

    def tokenise(self, names: Sequence[str], prompts: Prompts) -> list[list[int]]:
        """Return token rows of names for these prompts; they stay valid while M, K and the suffix stay the same.

        Underscores are read as spaces; zeros stand where context after the name will be.

        Raises:
            ClassNameError: a name is empty or there is no room for it.
        """
        rows, room = [], self.room(prompts)
        gap, tail = [0] * prompts.n_suffix_context, self.tail(prompts)
        for i, name in enumerate(names):
            if not name.strip(" _"):
                raise ClassNameError(f"class name {i + 1} is empty: give every class a name")
            ids = [*self.encode(name.replace("_", " ") + prompts.suffix), self.end_token]
            ids[len(ids) - tail : len(ids) - tail] = gap
            if len(ids) > room:
                raise ClassNameError(
                    f"class name {name[:40]!r}… needs {len(ids)} tokens, but after the prompt there is room for "
                    f"{room}: shorten the name"
                )
            rows.append(ids)
        return rows

    def pack(self, names: Sequence[str], prompts: Prompts) -> PackedTokens:
        """Prepare names for many calls with prompts of this shape."""
        return pack(self.tokenise(names, prompts)).to(self.positional_embedding.device)

    def tail(self, prompts: Prompts) -> int:
        """Return the number of tokens of the suffix and the end token."""
        return len(self.encode(prompts.suffix)) + 1

    def __call__(self, prompts: Prompts, names: PackedTokens | Sequence[str], *, unit: bool = True) -> Tensor:
        """Embed (C,) names in their order as (C, D), differentiable in ``prompts``; by default unit rows."""
        device = self.positional_embedding.device
        packed = names.to(device) if isinstance(names, PackedTokens) else self.pack(names, prompts)
        prefix, rows = self.prefix(prompts), _Rows(packed, self._embed(prompts, packed))
        last = len(self.blocks) - 1
        for layer, (block, past) in enumerate(zip(self.blocks, prefix.past, strict=True)):
            insertion = prompts.text.get(layer)
            if layer == prompts.first_class_specific_layer and prefix.class_context is not None:
                rows.lead_with(prefix.class_context)
            first = prompts.first_class_specific_layer
            if insertion and first is not None and layer >= first:
                rows.insert(insertion)
            rows.apply(block, past, ends_only=layer == last)
        embedded = self.project(rows.x, unit=unit)
        back = torch.empty_like(packed.order)
        back[packed.order] = torch.arange(len(back), device=back.device)
        return embedded[back]

    def _embed(self, prompts: Prompts, packed: PackedTokens) -> Tensor:
        """Return the (N, W) input of the first block for the names' own tokens."""
        vectors: Tensor = self.token_embedding(packed.ids)
        if prompts.suffix_context is not None:
            gap, width = prompts.n_suffix_context, vectors.shape[-1]
            first = packed.ends - (self.tail(prompts) - 1) - gap
            indices = first[:, None] + torch.arange(gap, device=first.device)
            context = prompts.suffix_context.to(vectors.dtype)
            context = context[packed.order] if context.ndim == 3 else context.expand(len(first), -1, -1)
            vectors = vectors.index_copy(0, indices.flatten(), context.reshape(-1, width))
        return vectors + self.positional_embedding[1 + prompts.n_context + packed.positions]

    def prefix(self, prompts: Prompts) -> Prefix:
        """Run ``[start][context]`` through the layers, as far as all classes share it."""
        start = self.token_embedding.weight[self.start_token][None]
        first_class_specific_layer, class_context = prompts.first_class_specific_layer, None
        x = (start + self.positional_embedding[:1])[None]
        context = prompts.context.to(start.dtype) + self.positional_embedding[1 : 1 + prompts.n_context]
        if context.ndim == 3:
            class_context = context
        else:
            x = torch.cat([x, context[None]], 1)
        past: list[KeyValue] = []
        for layer, block in enumerate(self.blocks):
            if layer == first_class_specific_layer and class_context is None:
                class_context, x = x[0, 1:], x[:, :1]
            insertion = prompts.text.get(layer)
            if insertion and (first_class_specific_layer is None or layer < first_class_specific_layer):
                x = torch.cat([x[:, :1], insert(x[:, 1:], insertion)], 1)
            query, key, value = project_heads(block, x)
            past.append((key[0], value[0]))
            if len(past) < len(self.blocks):
                x = finish_block(block, x, attend(query, key, value, None))
        return Prefix(past, class_context)

    def project(self, x: Tensor, *, unit: bool = True) -> Tensor:
        """Project (…, W) outputs of the last block to (…, D) rows."""
        rows: Tensor = self.ln_final(x) @ self.projection
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        return normalize(rows, dim=-1) if unit else rows


class _Rows:
    """The names' own tokens (N, W) on their way through the layers, after class-specific prompt positions if any."""

    def __init__(self, packed: PackedTokens, x: Tensor) -> None:
        self.x, self._packed, self._lead = x, packed, 0

    def lead_with(self, context: Tensor) -> None:
        """Put prompt positions (M, W) or, in the caller's order of classes, (C, M, W) in front of each name."""
        context = context[self._packed.order] if context.ndim == 3 else context.expand(len(self._packed.order), -1, -1)
        groups, classes = self._grouped(), context.split([count for count, _ in self._packed.groups])
        self._join([torch.cat(pair, 1) for pair in zip(classes, groups, strict=True)], context.shape[1])

    def insert(self, insertion: DeepPrompt) -> None:
        """Change the prompt positions in front of each name."""
        vectors = insertion.vectors[self._packed.order] if insertion.per_class else insertion.vectors
        first, groups, lead = 0, [], self._lead
        for group in self._grouped():
            group_vectors = vectors[first : first + len(group)] if insertion.per_class else vectors
            changed = insert(group[:, :lead], DeepPrompt(group_vectors, insertion.mode, insertion.weight))
            groups.append(torch.cat([changed, group[:, lead:]], 1))
            first += len(group)
        self._join(groups, lead + (vectors.shape[-2] if insertion.mode == "append" else 0))

    def apply(self, block: nn.Module, past: KeyValue, *, ends_only: bool) -> None:
        """Apply one block; with ``ends_only`` keep only the end tokens, so that ``x`` becomes (C, W)."""
        attention: nn.MultiheadAttention = block.attn  # type: ignore[assignment]
        qkv, sizes = project(block, self.x), self._sizes()
        lengths = (self._packed.lengths + self._lead).split([count for count, _ in self._packed.groups])
        mixed = []
        for (count, length), group, ends in zip(sizes, qkv.split([c * n for c, n in sizes]), lengths, strict=True):
            query, key, value = split_heads(group.unflatten(0, (count, length)), attention.num_heads)
            mask = None
            if ends_only:
                query = query[torch.arange(count), :, ends - 1, None]
                beyond = torch.arange(length, device=ends.device) >= ends[:, None]
                mask = torch.zeros_like(beyond, dtype=query.dtype).masked_fill(beyond, float("-inf"))[:, None, None]
            mixed.append(attend(query, key, value, past, mask).flatten(0, 1))
        residual = self.x[self._ends()] if ends_only else self.x
        self.x = finish_block(block, residual, torch.cat(mixed))

    def _sizes(self) -> list[tuple[int, int]]:
        return [(count, length + self._lead) for count, length in self._packed.groups]

    def _grouped(self) -> list[Tensor]:
        sizes = self._sizes()
        groups = self.x.split([count * length for count, length in sizes])
        return [group.unflatten(0, size) for group, size in zip(groups, sizes, strict=True)]

    def _join(self, groups: list[Tensor], lead: int) -> None:
        self.x, self._lead = torch.cat([group.flatten(0, 1) for group in groups]), lead

    def _ends(self) -> Tensor:
        return self._packed.ends + self._lead * (torch.arange(len(self._packed.order), device=self.x.device) + 1)
