from __future__ import annotations

import pytest
import torch
from support.exported import moved
from support.tiny import tiny_backbone

from sar_train.clip.prompts import Prompts
from sar_train.errors import ExportError
from sar_train.export.name_encoder import layout, tokenizer_spec
from sar_train.training.prompted import Fixed, PromptedCLIP, handcrafted


def spec_of(prompted: PromptedCLIP) -> tuple[int, str, int]:
    spec = tokenizer_spec(prompted.backbone.text, layout(prompted))
    assert spec.n_prefix + spec.max_name_tokens + 1 == spec.context_length == 77
    return spec.n_prefix, spec.suffix, spec.max_name_tokens


def test_a_template_takes_part_by_itself_and_a_learned_prompt_has_none() -> None:
    prompted = handcrafted(tiny_backbone(), "a photo of a {}, a pet.")
    placed = layout(prompted)
    assert (placed.template, placed.teacher) == ("a photo of a {}, a pet.", None)
    assert spec_of(prompted) == (5, ", a pet.", 71)
    for learned in (moved("coop", template="the {}, a pet."), moved("tcp", share=0.0)):
        assert layout(learned).teacher is None
    assert layout(moved("coop", template="the {}, a pet.")).template is None


def test_teacher_and_student_must_read_the_same_tokens() -> None:
    prompted = moved("tcp")
    other = PromptedCLIP(prompted.backbone, prompted.method, "a photo of a {}, a pet.", prompted.trained)
    with pytest.raises(ExportError, match=r"'\.'.*', a pet\.'"):
        layout(other)


def test_a_prompt_that_leaves_no_room() -> None:
    def placed(n_ctx: int, n_suffix_context: int) -> PromptedCLIP:
        class Behind(Fixed):
            def prompts(self, *_: object) -> Prompts:
                return Prompts(self.context, suffix_context=torch.zeros(n_suffix_context, 32))

        return PromptedCLIP(tiny_backbone(), Behind(Prompts(torch.zeros(n_ctx, 32))), "{}", ())

    assert spec_of(placed(43, 30))[0] == 74
    with pytest.raises(ExportError, match="75 of 77"):
        spec_of(placed(43, 31))
