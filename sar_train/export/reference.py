"""The name encoder of the hand-crafted prompt, with which the run time compares a new name's learned embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_infer.artefact.manifest import REFERENCE_ENCODER, TOKENIZER, Reference
from sar_infer.errors import ClassNameError
from sar_infer.text.tokenizer import Tokenizer, encode_name
from sar_train.errors import ExportError
from sar_train.export.compact import write_graph
from sar_train.export.fixed import handcrafted
from sar_train.export.layout import layout, tokenizer_spec
from sar_train.export.name_encoder import export_name_encoder
from sar_train.export.parity import name_difference, names_of_every_length
from sar_train.export.source import Source
from sar_train.export.verify import MAX_DIFFERENCE


def write_reference(folder: Path, source: Source, names: Sequence[str]) -> Reference:
    """Write the graph and compare it with torch.

    It takes tokens like the bundle's own name encoder, but after its template's words and with its template's suffix.

    Args:
        folder: the bundle's, which has the tokenizer.
        source: the content of the bundle.
        names: phrases to try if they fit the template; names of every possible length are added.

    Raises:
        ExportError: the graph differs from torch, or the template leaves no room for a name.
    """
    prompted = handcrafted(source.backbone, source.prompted.template)
    placed = layout(prompted)
    spec = tokenizer_spec(source.backbone.text, placed)
    write_graph(folder / REFERENCE_ENCODER, export_name_encoder(prompted, placed))
    tokenizer = Tokenizer.open(folder / TOKENIZER)
    tokens: dict[str, list[int]] = {}
    for name in (*names, *names_of_every_length(tokenizer, spec)):
        try:
            tokens[name] = [*encode_name(tokenizer, spec, name), spec.end_token]
        except ClassNameError:  # fits only the learned prompt
            continue
    difference = name_difference(folder / REFERENCE_ENCODER, prompted, [*tokens], [*tokens.values()])
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"reference encoder: differs from torch by {difference:.3g} on {len(tokens)} names, expected at most "
            f"{MAX_DIFFERENCE}; nothing was written"
        )
    return Reference(source.prompted.template, spec)
