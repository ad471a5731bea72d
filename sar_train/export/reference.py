"""The name encoder of the hand-crafted prompt, with which the run time compares a new name's learned embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_infer.artefact.manifest import REFERENCE_ENCODER, Reference
from sar_train.export.compact import write_graph
from sar_train.export.fixed import handcrafted
from sar_train.export.layout import layout, tokenizer_spec
from sar_train.export.name_encoder import export_name_encoder
from sar_train.export.parity import compare_names
from sar_train.export.source import ExportSource


def write_reference(folder: Path, source: ExportSource, names: Sequence[str]) -> Reference:
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
    compare_names(folder, REFERENCE_ENCODER, prompted, spec, names)
    return Reference(source.prompted.template, spec)
