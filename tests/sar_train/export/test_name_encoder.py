from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.exported import moved, reference_names
from support.tiny import shallow, tiny_backbone
from torch import Tensor

from sar_infer.bundle_check.comparison import open_graph
from sar_train.clip import backbone as backbones
from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.export.compact import compact
from sar_train.export.fixed import Fixed, handcrafted
from sar_train.export.layout import layout
from sar_train.export.name_encoder import NameEncoderModule, export_name_encoder
from sar_train.methods.base import Classes, PromptMethod
from sar_train.training.prompted import PromptedCLIP

NAMES = ["dog", "golden retriever", "Œuvre d'été", "a rather long name of something, with commas", "x y z", "7", "ox"]
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


class PerClass(PromptMethod):
    """Vectors of each class's own: the hand-crafted embedding, spread over ``n`` positions by fixed maps."""

    def __init__(self, kind: str) -> None:
        torch.nn.Module.__init__(self)
        self.kind = kind

    def vectors(self, seed: int, n: int) -> Tensor:
        return 0.3 * torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        own = classes.handcrafted[:, None] + self.vectors(0, 2)
        shared, replaced = self.vectors(1, 3), DeepPrompt(own)
        match self.kind:
            case "replaces":
                return Prompts(shared, text={1: replaced})
            case "from the first block on":
                return Prompts(shared, text={0: replaced, 1: DeepPrompt(-own)})
            case "in part":
                return Prompts(shared, text={1: DeepPrompt(own, weight=0.3)})
            case "appends":
                return Prompts(shared, text={1: DeepPrompt(own, "append")})
            case "shared before and after":
                after = {1: replaced, 2: DeepPrompt(self.vectors(4, 1))}
                return Prompts(shared, text={0: DeepPrompt(self.vectors(3, 3))} | after)
            case "longer every block":
                appended = {0: DeepPrompt(self.vectors(3, 2), "append"), 1: DeepPrompt(own, "append")}
                return Prompts(shared, text=appended | {2: DeepPrompt(self.vectors(4, 4))})
            case "context":
                return Prompts(own)
            case "behind":
                return Prompts(shared, suffix_context=self.vectors(2, 2), text={1: replaced})
            case "own behind":
                return Prompts(own, suffix_context=2 * own)
        raise AssertionError(self.kind)


KINDS = [
    "replaces",
    "from the first block on",
    "in part",
    "appends",
    "shared before and after",
    "longer every block",
    "context",
    "behind",
    "own behind",
]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_each_classes_own_wherever_they_enter(kind: str) -> None:
    prompted = PromptedCLIP(tiny_backbone(), PerClass(kind), "a photo of a {}.", ())
    names = NAMES + every_length(prompted)[::9]
    torch.testing.assert_close(encode(prompted, names), reference_names(prompted, names), atol=1e-6, rtol=0)


class Longer(PerClass):
    """Vectors that all classes share, more of them from the second block on."""

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        return Prompts(self.vectors(1, 3), text={1: DeepPrompt(self.vectors(3, 2), "append")})


@pytest.mark.parametrize("method", ["maple", "promptsrc", "longer"])
def test_prompts_of_every_layer_that_all_names_share(method: str) -> None:
    longer = PromptedCLIP(tiny_backbone(), Longer(method), "a photo of a {}.", ())
    prompted = longer if method == "longer" else moved(method)
    names = NAMES + every_length(prompted)[::9]
    torch.testing.assert_close(encode(prompted, names), reference_names(prompted, names), atol=1e-6, rtol=0)


@pytest.mark.parametrize("template", ["a photo of a {}.", "{}, a pet.", "the {}"])
@pytest.mark.parametrize("settings", [{}, {"share": 0.4}, {"block": 0}, {"share": 0.0}])
def test_class_aware_tokens_behind_templates_of_several_kinds(template: str, settings: dict[str, float]) -> None:
    prompted = moved("tcp", template=template, **settings)
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
        part = names[start : start + batch]
        np.testing.assert_allclose(graph(padded(prompted, part)), prompted.embed(part).numpy(), atol=1e-5, rtol=0)
        start += batch


def exported_graph(prompted: PromptedCLIP, folder: Path):
    path = folder / "name_encoder.onnx"
    path.write_bytes(compact(export_name_encoder(prompted, layout(prompted))).SerializeToString())
    return open_graph(path)


def test_padding_changes_nothing(exported: Path) -> None:
    graph = open_graph(exported / "name_encoder.onnx")
    tokens = np.array([[1929, 269, 49407]])
    more = np.pad(tokens, ((0, 0), (0, 40)))
    np.testing.assert_allclose(graph(more), graph(tokens), atol=1e-6)


def test_padding_changes_nothing_where_context_stands_behind_the_name() -> None:
    prompted = moved("coop", position="front")
    encoder = NameEncoderModule(prompted, layout(prompted))
    tokens = torch.tensor([[1929, 269, 49407]])
    with torch.no_grad():
        torch.testing.assert_close(encoder(torch.nn.functional.pad(tokens, (0, 40))), encoder(tokens))


def test_two_towers_in_a_graph_share_their_weights() -> None:
    sizes = [
        export_name_encoder(prompted, layout(prompted)).ByteSize()
        for prompted in (handcrafted(tiny_backbone(), "a photo of a {}."), moved("tcp"))
    ]
    assert sizes[1] < 1.05 * sizes[0]


def test_the_end_token_alone_is_a_name_too(exported: Path) -> None:
    rows = open_graph(exported / "name_encoder.onnx")(np.array([[49407]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_row_longer_than_the_tower_is_an_error(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "name_encoder.onnx", providers=["CPUExecutionProvider"])
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match=r"broadcast|Add"):
        session.run(None, {"tokens": np.ones((1, 78), dtype=np.int64)}, options)


@pytest.mark.nightly
def test_graph_equals_tower_for_a_real_architecture(tmp_path: Path) -> None:
    """Text towers of CLIP's ResNets differ in the last projection alone."""
    prompted = learned(backbones.load(shallow("ViT-B-32", tmp_path), backbones.RANDOM), 16)
    reference = prompted.embed(NAMES).numpy()
    graph = exported_graph(prompted, tmp_path)
    np.testing.assert_allclose(graph(padded(prompted, NAMES)), reference, atol=1e-5, rtol=0)
