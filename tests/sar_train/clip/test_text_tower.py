"""The shared-prefix tower against open_clip's own encode_text, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import full_length
from support.tiny import RESNET, tiny_backbone
from torch import Tensor

from sar_train.clip import backbone as backbones
from sar_train.clip.prompts import DeepPrompt, Prompts, split_template
from sar_train.clip.tokens import pack
from sar_train.errors import ClassNameError, ConfigError

NAMES = [
    "cat",
    "golden retriever",
    "sea or lake",
    "X",
    "an improbably long name of a thing, with commas",
    "Œuvre d'été",
]
TEMPLATES = ["{}", "{}.", "{} texture.", "a {}.", "a photo {}.", "a photo of {}.", "a photo of a {}."]
TEMPLATES += ["a photo of a {}, a type of pet.", "a bad black and white photo of the small {} in a game"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_equals_encode_text_for_every_template_length(template: str) -> None:
    backbone = tiny_backbone()
    ours = backbone.embed_names(NAMES, template)
    torch.testing.assert_close(
        ours, full_length.encode_text(backbone, [template.format(n) for n in NAMES]), atol=2e-6, rtol=0
    )


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(*shape, tiny_backbone().text.width, generator=torch.Generator().manual_seed(seed))


def agree(
    tensors: dict[str, Tensor],
    ours: Callable[[dict[str, Tensor]], Tensor],
    theirs: Callable[[dict[str, Tensor]], Tensor],
) -> None:
    """Values and the gradients of every tensor are equal."""
    results = []
    for embed in (ours, theirs):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        rows = embed(leaves)
        direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
        results.append((rows.detach(), torch.autograd.grad((rows * direction).sum(), list(leaves.values()))))
    assert all(p.grad is None and not p.requires_grad for p in tiny_backbone().model.parameters())
    torch.testing.assert_close(results[0][0], results[1][0], atol=2e-6, rtol=0)
    for name, first, second in zip(tensors, results[0][1], results[1][1], strict=True):
        assert second.norm() > 1e-4, name
        assert (first - second).norm() <= 2e-5 * second.norm(), name


def test_the_reference_is_open_clips() -> None:
    backbone = tiny_backbone()
    context = backbone.text.embed_text("a photo of a")
    for suffix in (".", ", a type of pet."):
        theirs = full_length.encode_text(backbone, [f"a photo of a {name}{suffix}" for name in NAMES])
        ours = full_length.text_rows(backbone, NAMES, context, suffix=suffix)
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["tiny-vit", RESNET])
@pytest.mark.parametrize("n_ctx", [1, 4, 16, 50])
def test_values_and_gradients_equal_the_full_tower(name: str, n_ctx: int) -> None:
    backbone = tiny_backbone(name)
    agree(
        {"context": drawn(n_ctx, seed=n_ctx)},
        lambda t: backbone.text(Prompts(t["context"]), NAMES),
        lambda t: full_length.text_rows(backbone, NAMES, t["context"]),
    )


C = len(NAMES)
CASES: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "deep": ({"context": (4,), "replace 1": (4,), "replace 2": (4,)}, {}),
    "deep, fewer than there are": ({"context": (4,), "replace 1": (2,), "replace 2": (1,)}, {}),
    "at the first block": ({"context": (4,), "replace 0": (2,)}, {}),
    "a share": ({"context": (4,), "replace 1": (4,)}, {"share": 0.3}),
    "added": ({"context": (3,), "append 1": (2,)}, {}),
    "added twice": ({"context": (3,), "append 0": (2,), "append 2": (1,)}, {}),
    "added, then replaced": ({"context": (3,), "append 1": (2,), "replace 2": (5,)}, {}),
    "added to nothing": ({"context": (0,), "append 1": (2,)}, {}),
    "own": ({"context": (4,), "replace 2": (C, 4)}, {}),
    "own, a share": ({"context": (4,), "replace 1": (C, 3)}, {"share": 0.4}),
    "own at the first block": ({"context": (4,), "replace 0": (C, 2)}, {}),
    "own, added": ({"context": (2,), "append 1": (C, 2)}, {}),
    "own, added to nothing": ({"context": (0,), "append 1": (C, 2)}, {}),
    "shared, then own": ({"context": (4,), "replace 1": (4,), "replace 2": (C, 2)}, {}),
    "own, then shared": ({"context": (4,), "replace 1": (C, 2), "replace 2": (3,)}, {}),
    "own, then shared and added": ({"context": (4,), "replace 1": (C, 2), "append 2": (3,)}, {}),
    "own context": ({"context": (C, 4)}, {}),
    "own context, deep": ({"context": (C, 4), "replace 1": (2,), "replace 2": (C, 3)}, {}),
    "own context, first block": ({"context": (C, 2), "append 0": (2,), "replace 1": (4,)}, {}),
    "behind": ({"context": (3,), "behind": (2,)}, {}),
    "all behind": ({"context": (0,), "behind": (5,)}, {}),
    "own behind": ({"context": (2,), "behind": (C, 3)}, {}),
    "own context and behind": ({"context": (C, 2), "behind": (C, 2), "replace 1": (2,)}, {}),
    "own context, all behind": ({"context": (C, 0), "behind": (C, 4)}, {}),
    "behind a longer text": ({"context": (2,), "behind": (2,), "replace 1": (2,)}, {"suffix": ", a type of pet."}),
}


@pytest.mark.parametrize(("shapes", "settings"), CASES.values(), ids=CASES)
def test_prompts_equal_the_full_tower(shapes: dict[str, tuple[int, ...]], settings: dict[str, Any]) -> None:
    backbone, suffix = tiny_backbone(), settings.get("suffix", ".")

    def ours(t: dict[str, Tensor]) -> Tensor:
        insertions = {
            int(key.split()[1]): DeepPrompt(value, key.split()[0], settings.get("share", 1.0))
            for key, value in t.items()
            if " " in key
        }
        return backbone.text(Prompts(t["context"], suffix, t.get("behind"), insertions), NAMES)

    def theirs(t: dict[str, Tensor]) -> Tensor:
        deeper = {
            mode: {int(key.split()[1]): value for key, value in t.items() if key.startswith(mode)}
            for mode in ("replace", "append")
        }
        return full_length.text_rows(
            backbone, NAMES, t["context"], suffix_context=t.get("behind"), **{"suffix": suffix} | deeper | settings
        )

    tensors = {key: drawn(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
    empty = {key: tensor for key, tensor in tensors.items() if not tensor.numel()}
    filled = {key: tensor for key, tensor in tensors.items() if key not in empty}
    agree(filled, lambda t: ours(empty | t), lambda t: theirs(empty | t))


def test_names_of_many_lengths_are_grouped_and_padded_without_a_trace() -> None:
    backbone = tiny_backbone()
    names = [" ".join(["cat", "dog", "fox"][i % 3] for _ in range(1 + i % 7)) for i in range(40)]
    packed = backbone.text.pack(names, Prompts(drawn(4)))
    assert len(packed.groups) < 7, "nothing was padded"
    deep = drawn(len(names), 2)
    rows = backbone.text(Prompts(drawn(4), text={1: DeepPrompt(deep)}), names)
    torch.testing.assert_close(
        rows, full_length.text_rows(backbone, names, drawn(4), replace={1: deep}), atol=2e-6, rtol=0
    )


def test_more_vectors_than_places_are_refused() -> None:
    for context in (drawn(2), drawn(C, 2)):
        with pytest.raises(ConfigError, match="3 vectors .*2"):
            tiny_backbone().text(Prompts(context, text={1: DeepPrompt(drawn(3))}), NAMES)


def test_order_company_and_chunks_of_names_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, template = tiny_backbone(), "a photo of a {}."
    rows = backbone.embed_names(NAMES, template)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(NAMES)))
    alone = torch.cat([backbone.embed_names([name], template) for name in NAMES])
    torch.testing.assert_close(rows, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(rows, backbone.embed_names(NAMES[::-1], template).flip(0), atol=1e-6, rtol=0)
    monkeypatch.setattr(backbones, "CHUNK", 2)
    torch.testing.assert_close(backbone.embed_names(NAMES, template), rows, atol=1e-6, rtol=0)


def test_a_name_that_fits_exactly_and_one_that_does_not() -> None:
    backbone = tiny_backbone()
    prompts = Prompts(torch.zeros(16, backbone.text.width))
    room = backbone.text.room(prompts)
    fits = " ".join(["cat"] * (room - 2))
    assert backbone.text(prompts, [fits]).isfinite().all()
    with pytest.raises(ClassNameError, match=f"{room + 1} tokens.* {room}"):
        backbone.text(prompts, [fits + " cat"])


def test_empty_lists_and_names_are_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ClassNameError, match="at least one"):
        pack([])
    with pytest.raises(ClassNameError, match="class name 2"):
        backbone.embed_names(["cat", " "], "{}")


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "photo-{}"])
def test_templates_that_cannot_be_split(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        split_template(template)
