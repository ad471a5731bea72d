"""Text towers that are not CLIP's causal one, used as they are: whole texts in, under a hand-crafted template.

Tokens are made by the code that makes them at run time, by what open_clip's configuration says; an export compares
them with those of open_clip's own tokenizer.
"""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_infer import errors as run_time
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, encode_name, token_row
from sar_train.clip.prompts import split_template
from sar_train.errors import BackboneError, ClassNameError, ExportError

MERGES = 49_152 - 256 - 2
"""Merges that CLIP uses; open_clip's file holds many more."""
CHUNK = 128
"""Names that go through the tower at once."""


@dataclass(frozen=True)
class FullText:
    """A text tower behind a tokenizer.

    Attributes:
        model: the open_clip model.
        reference: open_clip's tokenizer of it.
        tokenizer: the same one as it is at run time.
        spec: how a text without a template becomes the tower's input.
        vocabulary: content of the tokenizer's file: merges, or a ``tokenizer.json``.
    """

    model: nn.Module
    reference: Any
    tokenizer: Tokenizer | JsonTokenizer
    spec: TokenizerSpec
    vocabulary: bytes = dataclasses.field(repr=False)

    def under(self, template: str) -> TokenizerSpec:
        """Return how a name becomes the tower's input under a template.

        Raises:
            ConfigError: not a template.
        """
        split_template(template)
        prefix, suffix = template.split("{}")
        return dataclasses.replace(self.spec, prefix=prefix, suffix=suffix)

    def tokens(self, names: Sequence[str], template: str) -> Tensor:
        """Return (N, L) token ids of names under a template.

        Raises:
            ClassNameError: a name is empty or too long.
        """
        spec = self.under(template)
        try:
            rows = [token_row(spec, encode_name(self.tokenizer, spec, name)) for name in names]
        except run_time.ClassNameError as error:
            raise ClassNameError(str(error)) from None
        return torch.tensor(rows, dtype=torch.long)

    @torch.no_grad()
    def __call__(self, names: Sequence[str], template: str, *, unit: bool = True) -> Tensor:
        """Embed names as (N, D); by default unit rows."""
        device = next(self.model.parameters()).device
        encode = self.model.encode_text
        rows = torch.cat([encode(chunk.to(device)) for chunk in self.tokens(names, template).split(CHUNK)])  # type: ignore[operator]
        return normalize(rows, dim=-1) if unit else rows


def full_text(model: nn.Module, tokenizer: Any, settings: Mapping[str, Any]) -> FullText:
    """Return the text tower of an open_clip model.

    Args:
        model: the model.
        tokenizer: open_clip's tokenizer of it.
        settings: ``text_cfg`` of its configuration.

    Raises:
        BackboneError: the tokenizer cannot be stored, or makes input of a kind that is not known here.
    """
    length = tokenizer.context_length
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        merges = merges_text(end)
        spec = TokenizerSpec("clip-bpe", length, 1, "", end, length - 2, "template", before=(start,))
        return FullText(model, tokenizer, Tokenizer(merges.decode().splitlines()[1:]), spec, merges)
    import tokenizers

    hub, mode = tokenizer.tokenizer, tokenizer.tokenizer_mode
    if getattr(hub, "backend_tokenizer", None) is None or hub.padding_side != "right" or mode:
        raise BackboneError(
            f"tokenizer {hub.name_or_path}: expected a tokenizer.json that pads at the right, and no mode"
        )
    own = tokenizers.Tokenizer.from_str(hub.backend_tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    inner, whole = hub("a", add_special_tokens=False).input_ids, hub("a").input_ids
    if tokenizer.strip_sep_token:
        whole = [0 if token == hub.sep_token_id else token for token in whole]
    at = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
    before, after = whole[:at], whole[at + len(inner) :]
    if len(after) != 1:
        raise BackboneError(f"tokenizer {hub.name_or_path}: expected one end token, got {len(after)}")
    cleaning = (settings.get("tokenizer_kwargs") or {}).get("clean", "whitespace")
    room, start, pad = length - len(before) - 1, tuple(before), hub.pad_token_id
    spec = TokenizerSpec(
        "tokenizer.json", length, len(before), "", after[0], room, "template", "", start, pad, cleaning
    )
    return FullText(model, tokenizer, JsonTokenizer(own, cleaning), spec, own.to_str().encode())


def merges_text(end_token: int) -> bytes:
    """Return the first line of open_clip's vocabulary file and the merges in use, one per line.

    Args:
        end_token: of the tower's tokenizer; token ``512 + r`` is merge ``r``, then come the start and the end token.

    Raises:
        ExportError: the tokenizer has another number of merges.
    """
    if end_token != 512 + MERGES + 1:
        raise ExportError(f"expected a tokenizer with end token {512 + MERGES + 1}, this backbone has {end_token}")
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return b"".join(gzip.decompress(packed).splitlines(keepends=True)[: MERGES + 1])
