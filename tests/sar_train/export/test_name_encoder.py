from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exported import moved, reference_names
from support.tiny import shallow, tiny_backbone
from torch import Tensor

from sar_infer.encoders.encoders import Encoder
from sar_infer.errors import BundleError
from sar_train.clip import backbone as backbones
from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.export.graph import compact
from sar_train.export.name_encoder import NameEncoderModule, export_name_encoder, layout
from sar_train.methods.base import Classes, PromptMethod
from sar_train.training.prompted import Fixed, PromptedCLIP, handcrafted

NAMES = ["dog", "golden retriever", "Œuvre d'été", "a rather long name of something, with commas", "x y z", "7", "ox"]
TEMPLATE = "a photo of a {}."
TEMPLATES = ["{}", "a {}.", "a photo of a {}.", "a bad black and white photo of the small {} in a game", "{}, a pet."]


def padded(prompted: PromptedCLIP, names: list[str]) -> np.ndarray:
    tower, suffix = prompted.backbone.text, layout(prompted).prompts.suffix
    rows = [[*tower.encode(name + suffix), tower.end_token] for name in names]
    tokens = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def every_length(prompted: PromptedCLIP) -> list[str]:
    placed, tower = layout(prompted), prompted.backbone.text
    room = tower.context_length - placed.n_prefix - len(tower.encode("dog" + placed.prompts.suffix))
    return [" ".join(["dog"] * length) for length in range(1, room + 1)]


def learned(backbone: Backbone, n_ctx: int) -> PromptedCLIP:
    context = 0.1 * torch.randn(n_ctx, backbone.text.width, generator=torch.Generator().manual_seed(n_ctx))
    return PromptedCLIP(backbone, Fixed(Prompts(context)), "a photo of a {}.", ())


def encode(prompted: PromptedCLIP, names: list[str]) -> Tensor:
    """Encode with the module that is written as a graph."""
    with torch.no_grad():
        rows: Tensor = NameEncoderModule(prompted, layout(prompted))(torch.from_numpy(padded(prompted, names)))
    return rows


@pytest.mark.parametrize("template", TEMPLATES)
def test_module_equals_tower_for_templates_of_every_kind(template: str) -> None:
    prompted = handcrafted(tiny_backbone(), template)
    names = NAMES + every_length(prompted)
    torch.testing.assert_close(encode(prompted, names), prompted.embed(names), atol=1e-6, rtol=0)


def vectors(seed: int, n: int) -> Tensor:
    return 0.3 * torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


SHARED = vectors(1, 3)
KINDS: dict[str, Callable[[Tensor], Prompts]] = {
    "replaces": lambda rows: Prompts(SHARED, text={1: DeepPrompt(rows)}),
    "from the first block on": lambda rows: Prompts(SHARED, text={0: DeepPrompt(rows), 1: DeepPrompt(-rows)}),
    "in part": lambda rows: Prompts(SHARED, text={1: DeepPrompt(rows, weight=0.3)}),
    "appends": lambda rows: Prompts(SHARED, text={1: DeepPrompt(rows, "append")}),
    "shared before and after": lambda rows: Prompts(
        SHARED, text={0: DeepPrompt(vectors(3, 3)), 1: DeepPrompt(rows), 2: DeepPrompt(vectors(4, 1))}
    ),
    "longer every block": lambda rows: Prompts(
        SHARED,
        text={0: DeepPrompt(vectors(3, 2), "append"), 1: DeepPrompt(rows, "append"), 2: DeepPrompt(vectors(4, 4))},
    ),
    "context": Prompts,
    "behind": lambda rows: Prompts(SHARED, suffix_context=vectors(2, 2), text={1: DeepPrompt(rows)}),
    "own behind": lambda rows: Prompts(rows, suffix_context=2 * rows),
    "shared alone": lambda _: Prompts(SHARED, text={1: DeepPrompt(vectors(3, 2), "append")}),
}
"""Prompts made of vectors (C, 2, W) of each class's own."""


class PerClass(PromptMethod):
    """Vectors of each class's own: the hand-crafted embedding, spread over two positions by fixed maps."""

    def __init__(self, kind: str) -> None:
        torch.nn.Module.__init__(self)
        self.kind = kind

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        return KINDS[self.kind](classes.handcrafted[:, None] + vectors(0, 2))


CASES: dict[str, Callable[[], PromptedCLIP]] = {
    **{kind: partial(lambda kind: PromptedCLIP(tiny_backbone(), PerClass(kind), TEMPLATE, ()), kind) for kind in KINDS},
    "maple": lambda: moved("maple"),
    "promptsrc": lambda: moved("promptsrc"),
    **{
        f"tcp {template} {settings}": partial(moved, "tcp", template=template, **settings)
        for template in (TEMPLATE, "{}, a pet.", "the {}")
        for settings in ({}, {"share": 0.4}, {"block": 0}, {"share": 0.0})
    },
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_prompts_wherever_they_enter(make: Callable[[], PromptedCLIP]) -> None:
    prompted = make()
    names = NAMES + every_length(prompted)[::9]
    torch.testing.assert_close(encode(prompted, names), reference_names(prompted, names), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("template", "student"),
    [
        ("a photo of a {} .", "{} , a type of car"),
        ("a photo of a {} , a type of texture.", "{} texture."),
        ("a photo of a {}", "person doing {} ."),
    ],
)
def test_a_teacher_with_another_text_behind_the_name(template: str, student: str) -> None:
    prompted = moved("tcp", template=template, student=student)
    names = [*NAMES, "U.S.A.", "what?!", "...", *every_length(prompted)[::9], every_length(prompted)[-1]]
    expected = prompted.embed(names)
    torch.testing.assert_close(expected, reference_names(prompted, names), atol=1e-6, rtol=0)
    torch.testing.assert_close(encode(prompted, names), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", ["middle", "front"])
@pytest.mark.parametrize("n_ctx", [1, 5])
def test_context_behind_the_name(position: str, n_ctx: int) -> None:
    prompted = moved("coop", context_init="", n_ctx=n_ctx, position=position)
    names = [*NAMES, *every_length(prompted)]
    torch.testing.assert_close(encode(prompted, names), reference_names(prompted, names), atol=1e-6, rtol=0)
    melting = ["U.S.A.", "what?!", "..."]  # into one token with the full stop behind the name
    torch.testing.assert_close(encode(prompted, melting), prompted.embed(melting), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_ctx", [0, 16, 72])
def test_graph_equals_tower_for_every_batch_and_every_length(n_ctx: int, tmp_path: Path) -> None:
    prompted = learned(tiny_backbone(), n_ctx)
    graph, lengths = exported_graph(prompted, tmp_path), every_length(prompted)
    names = (lengths + [name for name in NAMES if n_ctx < 50] + lengths * 33)[:120]
    start = 0
    for batch in (1, 2, 7, 33, len(names) - 43):
        some = names[start : start + batch]
        np.testing.assert_allclose(graph(padded(prompted, some)), prompted.embed(some).numpy(), atol=1e-5, rtol=0)
        start += batch


def exported_graph(prompted: PromptedCLIP, folder: Path):
    path = folder / "name_encoder.onnx"
    path.write_bytes(compact(export_name_encoder(prompted, layout(prompted))).SerializeToString())
    return partial(Encoder(path, prompted.backbone.embed_dim, "cpu").run, "tokens")


def test_two_towers_in_a_graph_share_their_weights() -> None:
    sizes = [
        export_name_encoder(prompted, layout(prompted)).ByteSize()
        for prompted in (handcrafted(tiny_backbone(), "a photo of a {}."), moved("tcp"))
    ]
    assert sizes[1] < 1.05 * sizes[0]


def test_the_end_token_alone_is_a_name_and_a_row_longer_than_the_tower_an_error(exported: Path) -> None:
    graph = partial(Encoder(exported / "name_encoder.onnx", 32, "cpu").run, "tokens")
    np.testing.assert_allclose(np.linalg.norm(graph(np.array([[49407]])), axis=1), 1, atol=1e-6)
    with pytest.raises(BundleError, match="cannot run this graph"):
        graph(np.ones((1, 78), dtype=np.int64))


@pytest.mark.nightly
def test_graph_equals_tower_for_a_real_architecture(tmp_path: Path) -> None:
    """Text towers of CLIP's ResNets differ in the last projection alone."""
    prompted = learned(backbones.load(shallow("ViT-B-32", tmp_path), backbones.RANDOM), 16)
    reference = prompted.embed(NAMES).numpy()
    graph = exported_graph(prompted, tmp_path)
    np.testing.assert_allclose(graph(padded(prompted, NAMES)), reference, atol=1e-5, rtol=0)
