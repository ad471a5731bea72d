"""The shared-prefix tower against open_clip's own encode_text, values and gradients."""

from __future__ import annotations

import open_clip
import pytest
import torch
from support.tiny import tiny_backbone

from sar_train.backbone import Backbone
from sar_train.errors import ClassNameError
from sar_train.prompts import Prompts, split_template
from sar_train.tokens import pack

NAMES = [
    "cat",
    "golden retriever",
    "sea or lake",
    "X",
    "an improbably long name of a thing, with commas",
    "Œuvre d'été",
]
TEMPLATES = [
    "{}",
    "{}.",
    "{} texture.",
    "a {}.",
    "a photo {}.",
    "a photo of {}.",
    "a photo of a {}.",
    "a centered satellite photo of {}.",
    "a photo of a {}, a type of pet.",
    "a bad black and white photo of the small {} in a game",
]


def full_length(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    return backbone.model.encode_text(tokens, normalize=True)


def full_length_with_context(backbone: Backbone, context: torch.Tensor, names: list[str]) -> torch.Tensor:
    """CoOp's own way: splice the context into the token embeddings, 77 positions, all through the model."""
    model, n_ctx = backbone.model, len(context)
    tokens = open_clip.get_tokenizer("ViT-B-32")([" ".join(["X"] * n_ctx + [name + "."]) for name in names])
    x = model.token_embedding(tokens)
    x = torch.cat([x[:, :1], context.expand(len(names), -1, -1), x[:, 1 + n_ctx :]], 1) + model.positional_embedding
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    x = x[torch.arange(len(names)), tokens.argmax(-1)] @ model.text_projection
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize("template", TEMPLATES)
def test_equals_encode_text_for_every_template_length(template: str) -> None:
    backbone = tiny_backbone()
    ours = backbone.embed_names(NAMES, backbone.handcrafted(template))
    torch.testing.assert_close(ours, full_length(backbone, [template.format(n) for n in NAMES]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("n_ctx", [1, 4, 16, 50])
def test_values_and_gradients_equal_the_full_tower(n_ctx: int) -> None:
    backbone = tiny_backbone()
    start = 0.1 * torch.randn(n_ctx, backbone.text.width, generator=torch.Generator().manual_seed(n_ctx))
    direction = torch.randn(len(NAMES), backbone.embed_dim, generator=torch.Generator().manual_seed(1))
    results = []
    for embed in (lambda c: backbone.text(Prompts(c), NAMES), lambda c: full_length_with_context(backbone, c, NAMES)):
        context = start.clone().requires_grad_()
        rows = embed(context)
        (rows * direction).sum().backward()
        results.append((rows.detach(), context.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    assert (our_gradient - their_gradient).norm() <= 1e-5 * their_gradient.norm()


def test_gradient_equals_finite_differences() -> None:
    backbone = tiny_backbone()
    model = backbone.model.double()
    try:
        context = (0.1 * torch.randn(2, backbone.text.width, dtype=torch.double)).requires_grad_()
        assert torch.autograd.gradcheck(lambda c: backbone.text(Prompts(c), NAMES[:3]), context, atol=1e-6)
    finally:
        model.float()


def test_the_order_and_company_of_names_do_not_matter() -> None:
    backbone = tiny_backbone()
    prompts = backbone.handcrafted("a photo of a {}.")
    together = backbone.embed_names(NAMES, prompts)
    alone = torch.cat([backbone.embed_names([name], prompts) for name in NAMES])
    backwards = backbone.embed_names(NAMES[::-1], prompts).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together, backwards, atol=1e-6, rtol=0)


def test_rows_have_unit_norm_and_chunks_change_nothing() -> None:
    backbone = tiny_backbone()
    prompts = backbone.handcrafted("a photo of a {}.")
    rows = backbone.embed_names(NAMES, prompts)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(NAMES)))
    torch.testing.assert_close(backbone.embed_names(NAMES, prompts, chunk=2), rows, atol=1e-6, rtol=0)


def test_a_name_that_fits_exactly_and_one_that_does_not() -> None:
    backbone = tiny_backbone()
    prompts = Prompts(torch.zeros(16, backbone.text.width))
    room = backbone.text.room(prompts)
    fits = " ".join(["cat"] * (room - 2))
    assert backbone.embed_names([fits], prompts).isfinite().all()
    with pytest.raises(ClassNameError, match=f"needs {room + 1} tokens.*room for {room}"):
        backbone.embed_names([fits + " cat"], prompts)


def test_empty_lists_and_names_are_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ClassNameError, match="at least one"):
        pack([])
    with pytest.raises(ClassNameError, match="class name 2 is empty"):
        backbone.embed_names(["cat", " "], backbone.handcrafted("{}"))


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "photo-{}"])
def test_templates_that_cannot_be_split(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        split_template(template)


def test_the_backbone_gets_no_gradient() -> None:
    backbone = tiny_backbone()
    context = torch.zeros(4, backbone.text.width, requires_grad=True)
    backbone.text(Prompts(context), NAMES).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
