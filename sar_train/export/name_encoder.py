"""The text side as an ONNX graph that contains the prompt: (N, L) int64 ``tokens`` to (N, D) unit rows ``embedding``.

Prompts that are the same for all names are constants. Where a method makes a class's own prompts from its hand-crafted
embedding (TCP), the graph has two towers: a teacher reads the tokens after the hand-crafted template, the method's
network turns the result into prompts, and the student reads the same tokens after those. If the teacher has another
text after the name, that text's tokens replace the student's.

A tower without CLIP's causal form is exported as it is (`export_full_text`), with padded rows of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from sar_infer.text import TokenizerSpec
from sar_train.clip.attention import KeyValue, attend, finish_block, project_heads
from sar_train.clip.full_text import FullText
from sar_train.clip.prompts import Prompts, insert
from sar_train.clip.text_tower import TextTower
from sar_train.errors import ExportError
from sar_train.export.graph import OpenClipEncoder, trace
from sar_train.methods.base import Classes
from sar_train.training.prompted import Fixed, PromptedCLIP


@dataclass(frozen=True)
class PromptLayout:
    """The prompts of a method, seen without any particular name.

    Attributes:
        prompts: the prompts of one name; those of other classes may differ in values, not in shape.
        teacher: the hand-crafted prompts from whose embeddings the method makes each class's prompts; None if the
            prompts are the same for all classes.
        template: the hand-crafted template that takes part in embedding a name, or None.
        longer: by how many tokens the teacher's text after the name is longer than the method's; may be negative.
    """

    prompts: Prompts
    teacher: Prompts | None
    template: str | None
    longer: int = 0

    @property
    def n_prefix(self) -> int:
        """Count the positions other than name, suffix and end token: the start token and the whole context.

        The teacher needs room for the name as well, so the longer prompt of the two counts.
        """
        student = 1 + self.prompts.n_context + self.prompts.n_suffix_context
        return student if self.teacher is None else max(student, 1 + self.teacher.n_context + self.longer)


@torch.no_grad()
def layout(prompted: PromptedCLIP) -> PromptLayout:
    """Return the layout of a method's prompts.

    Raises:
        ExportError: teacher and student have different texts after the name, and a text may merge with the name into
            one token, so that the two cannot read one input.
    """
    prompts, template = prompted.method.prompts(prompted.classes(["x"])), prompted.template
    if prompts.first_class_specific_layer is None:
        return PromptLayout(prompts, None, template if isinstance(prompted.method, Fixed) else None)
    teacher = prompted.backbone.handcrafted(template)
    behind = prompts.suffix, teacher.suffix
    if behind[0] != behind[1] and any(text and not text[0].isspace() for text in behind):
        raise ExportError(
            f"the method puts {behind[0]!r} after a name and its template {template!r} {behind[1]!r}; both read the "
            "same tokens of a name, so the two texts must be equal or begin with a space"
        )
    tower = prompted.backbone.text
    return PromptLayout(prompts, teacher, template, tower.tail(teacher) - tower.tail(prompts))


def tokenizer_spec(tower: TextTower, placed: PromptLayout) -> TokenizerSpec:
    """Return how names become tokens for these prompts.

    Raises:
        ExportError: no position is left for a name.
    """
    n_prefix, suffix = placed.n_prefix, placed.prompts.suffix
    room = tower.context_length - n_prefix - 1
    if room < 1 + len(tower.encode(suffix)):
        raise ExportError(f"the prompt takes {n_prefix} of {tower.context_length} positions: no room for a name")
    return TokenizerSpec("clip-bpe", tower.context_length, n_prefix, suffix, tower.end_token, room)


class NameEncoderModule(nn.Module):
    """The same as ``prompted.embed(names)``, for padded rows of tokens."""

    def __init__(self, prompted: PromptedCLIP, placed: PromptLayout) -> None:
        super().__init__()
        tower = prompted.backbone.text
        self.placed = placed
        self.method = None if placed.teacher is None else prompted.method
        self.student = PaddedText(tower, placed.prompts)
        self.teacher = None if placed.teacher is None else PaddedText(tower, placed.teacher)
        self.exchanged = False
        if placed.teacher is not None and placed.teacher.suffix != placed.prompts.suffix:
            self.exchanged = True
            tail = [*tower.encode(placed.teacher.suffix), tower.end_token, 0]
            self.register_buffer("tail", torch.tensor(tail, device=prompted.backbone.device))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode (N, L) token ids, each row ending with the end token and padded with 0, as (N, D) unit rows."""
        prompts = self.placed.prompts
        if self.teacher is not None and self.method is not None:
            read = self._exchange(tokens) if self.exchanged else tokens
            prompts = self.method.prompts(Classes((), self.teacher(read, self.placed.teacher)))
        rows: Tensor = self.student(tokens, prompts)
        return rows

    def _exchange(self, tokens: Tensor) -> Tensor:
        """Replace the student's text after the name by the teacher's in rows (N, L) that end with the end token."""
        tail: Tensor = self.get_buffer("tail")
        start = (tokens.argmax(-1, keepdim=True) - (self.student.tail - 1)).clamp(min=0)
        columns = torch.arange(tokens.shape[1] + self.placed.longer, device=tokens.device)[None]
        behind = (columns - start).clamp(max=len(tail) - 1)  # the last one is padding
        source = torch.where(columns < start, columns, tokens.shape[1] + behind)
        return torch.cat([tokens, tail.expand(tokens.shape[0], -1)], 1).gather(1, source)


def export_name_encoder(prompted: PromptedCLIP, placed: PromptLayout) -> onnx.ModelProto:
    """Export the graph, for any number of names of any length that the tower has room for."""
    tower = prompted.backbone.text
    suffix = [*tower.encode(placed.prompts.suffix), tower.end_token]
    example = torch.tensor([[1, 2, *suffix], [1, *suffix, 0]], device=prompted.backbone.device)
    encoder = NameEncoderModule(prompted, placed).eval()
    return trace(encoder, example, input_name="tokens", dynamic={0: "batch", 1: "length"})


class PaddedText(nn.Module):
    """CLIP's text tower for padded rows of tokens, with its shared prefix as constants.

    `sar_train.clip.text_tower` does the same for names that are packed by length, with gradients. The tower is causal,
    so the keys and values of the positions that all names share are constants, and a name costs its own tokens only.
    From the layer on where classes have prompt positions of their own, these precede each name's tokens. Rows are
    padded with 0: no position sees what follows it, so the padding never reaches the end token, whose output counts.

    Args:
        tower: the frozen tower.
        prompts: those that all names share become constants; each class's own are passed to every call.
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
        self.register_buffer("own", None if prefix.class_context is None else prefix.class_context.detach().clone())

    def forward(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """Encode (N, L) token ids, each row ending with the end token and padded with 0, as (N, D) unit rows.

        The last layer computes only the end token, which has the largest id of the vocabulary.
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
        """Return the first block's input (N, L + K, W) and the places (N,) of the end tokens in it."""
        x, ends = self.token_embedding(tokens), tokens.argmax(-1)
        first, length = 1 + prompts.n_context, tokens.shape[1] + prompts.n_suffix_context
        if prompts.suffix_context is not None:
            gap = prompts.n_suffix_context
            behind = prompts.suffix_context.to(x.dtype).expand(tokens.shape[0], -1, -1)
            columns = torch.arange(length, device=tokens.device)[None]
            start = (ends - (self.tail - 1)).clamp(min=0)[:, None]
            inside = (columns >= start) & (columns < start + gap)
            outside = torch.where(columns < start, columns, columns - gap)
            source = torch.where(inside, tokens.shape[1] + columns - start, outside)
            x = torch.cat([x, behind], 1).gather(1, source[..., None].expand(-1, -1, x.shape[-1]))
            ends = ends + gap
        return x + self.positions[first : first + length], ends  # type: ignore[index]

    def _change(self, x: Tensor, lead: int, layer: int, prompts: Prompts) -> tuple[Tensor, int]:
        """Apply what enters before a layer to rows (N, T, W) that begin with ``lead`` prompt positions."""
        if layer == prompts.first_class_specific_layer:
            context: Tensor = self.get_buffer("own")
            if prompts.context.ndim == 3:
                context = prompts.context + self.positions[1 : 1 + prompts.n_context]  # type: ignore[index]
            x, lead = torch.cat([context.expand(x.shape[0], -1, -1), x], 1), context.shape[-2]
        if layer not in prompts.text:
            return x, lead
        changed = insert(x[:, :lead], prompts.text[layer])
        return torch.cat([changed, x[:, lead:]], 1), changed.shape[1]

    def _past(self, layer: int) -> KeyValue:
        return self.get_buffer(f"prefix_key_{layer}"), self.get_buffer(f"prefix_value_{layer}")


def export_full_text(tower: FullText) -> onnx.ModelProto:
    """Export the graph, for any number of texts of the tower's own length."""
    example = tower.tokens(["a", "b"], "{}").to(next(tower.model.parameters()).device)
    encoder = OpenClipEncoder(tower.model, "encode_text")
    return trace(encoder.eval(), example, input_name="tokens", dynamic={0: "batch"})
