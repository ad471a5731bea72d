from __future__ import annotations

import dataclasses

import pytest
from support.exported import moved, source_of
from support.tiny import tiny_backbone

from sar_train.export.digest import encoder_digest
from sar_train.export.fixed import handcrafted
from sar_train.export.layout import layout, tokenizer_spec
from sar_train.export.source import Source
from sar_train.methods.base import methods


def digest(source: Source, merges: bytes = b"merges", **changes: object) -> str:
    placed = layout(source.prompted)
    spec = dataclasses.replace(tokenizer_spec(source.backbone.text, placed), **changes)
    return encoder_digest(source, placed, spec, merges)


def test_weights_template_settings_and_tokenizer_count() -> None:
    source = Source(handcrafted(tiny_backbone(), "a {}."), {}, "handcrafted")
    digests = [
        digest(source),
        digest(dataclasses.replace(source, prompted=handcrafted(tiny_backbone(seed=1), "a {}."))),
        digest(dataclasses.replace(source, prompted=handcrafted(tiny_backbone(), "one {}."))),
        digest(dataclasses.replace(source, settings={"depth": 2})),
        digest(dataclasses.replace(source, method="other")),
        digest(source, suffix="!"),
        digest(source, b"other merges"),
    ]
    assert len(set(digests)) == 7


def test_who_is_in_the_bank_and_how_good_it_is_do_not_count() -> None:
    source = Source(handcrafted(tiny_backbone(), "a {}."), {}, "handcrafted")
    other = dataclasses.replace(source, phrases={"cat": ("cat",)}, regularisers={"sar": 1.0}, licences={"x": "y"})
    assert digest(other) == digest(source)


@pytest.mark.parametrize("name", sorted(methods.entries))
def test_every_tensor_of_a_method_counts(name: str) -> None:
    source = source_of(moved(name), ["cat"])
    tensors = source.prompted.method.state_dict()
    digests = {digest(source)}
    for tensor in tensors.values():
        tensor.view(-1)[0] += 1e-6
        digests.add(digest(source))
    assert len(digests) == 1 + len(tensors)


@pytest.mark.parametrize(("name", "counts"), [("coop", False), ("tcp", True)])
def test_the_template_counts_where_embeddings_are_made_from_it(name: str, counts: bool) -> None:
    digests = {digest(source_of(moved(name, template=text), ["cat"])) for text in ("a photo of a {}.", "one {}.")}
    assert len(digests) == 1 + counts
