"""Names in the answer of a chat model."""

from __future__ import annotations

import pytest

from sar_train.novel_names.chat_model import names_in


@pytest.mark.parametrize(
    "answer",
    [
        "crane\nsnow leopard\nheron\n",
        "1. crane\n2) snow leopard\n- heron",
        "```\ncrane\nsnow_leopard\nheron\n```",
        "Sure! Here are three further names:\n\ncrane\nsnow leopard\nheron\n\nThat is all.",
        "grey wolf\ncrane\nCrane\nGrey_Wolf\nsnow leopard\nsnow-leopard\nheron\r\n",
        "<think>The user wants\nanimals\nlion</think>\ncrane\nsnow leopard\nheron",
        "crane\nsnow leopard\nheron\nI have tried to keep to the style of the list above",
    ],
)
def test_names_are_lines(answer: str) -> None:
    assert names_in(answer, ["grey wolf", "dog"]) == ["crane", "snow leopard", "heron"]


@pytest.mark.parametrize(
    "answer", ["", "Sorry, I cannot help with that.", "```\n```", '["crane"]', "?", "\0", "1.\n2."]
)
def test_what_holds_no_name(answer: str) -> None:
    assert names_in(answer, ["dog"]) == []
