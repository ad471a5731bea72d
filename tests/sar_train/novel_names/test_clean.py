"""Names out of answers, in every shape in which models give them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sar_train.novel_names.clean import key, names_in

THREE = ["crane", "snow leopard", "heron"]
SHAPES = {
    "plain": "crane\nsnow leopard\nheron\n",
    "numbers": "1. crane\n2. snow leopard\n3. heron",
    "numbers in brackets": "1) crane\n(2) snow leopard\n3: heron",
    "bullets": "- crane\n* snow leopard\n• heron",
    "check boxes": "- [ ] crane\n- [x] snow leopard\n- [ ] heron",
    "bold": "1. **crane**\n2. **snow leopard**\n3. *heron*",
    "bold with explanation": "- **crane**: a bird\n- **snow leopard** a cat of the mountains\n- **heron** – a bird",
    "quotes": "\"crane\"\n“snow leopard”\n'heron'",
    "quoted lines with commas": '  "crane",\n  "snow leopard",\n  "heron"',
    "fence": "```\ncrane\nsnow leopard\nheron\n```",
    "fence of a language": "```text\ncrane\nsnow leopard\nheron\n```\n",
    "json": '["crane", "snow leopard", "heron"]',
    "json in a fence": 'Here you are:\n```json\n["crane", "snow leopard", "heron"]\n```\nEnjoy!',
    "json object": '{"names": ["crane", "snow leopard", "heron"]}',
    "json objects": '[{"name": "crane", "why": "a bird"}, {"name": "snow leopard"}, {"name": "heron"}]',
    "json cut off": '["crane",\n"snow leopard",\n"heron"',
    "python": "['crane', 'snow leopard', 'heron']",
    "one line": "crane, snow leopard, heron",
    "one line with and": "Animals: crane, snow leopard, heron.",
    "chatter": "Sure! Here are three further names:\n\ncrane\nsnow leopard\nheron\n\nLet me know if you need more.",
    "explanations": "crane - a bird\nsnow leopard: a cat, and a shy one\nheron (also a bird)",
    "explanations behind a comma": "crane, a large bird\nsnow leopard, which is a cat\nheron",
    "full stops": "crane.\nsnow leopard.\nheron.",
    "underscores": "crane\nsnow_leopard\nheron",
    "case": "Crane\nSnow Leopard\nHeron",
    "duplicates": "crane\nCrane\nsnow leopard\nsnow-leopard\nheron",
    "training names": "grey wolf\ncrane\nGrey_Wolf\nsnow leopard\nheron",
    "table": "| # | name | kind |\n|---|---|---|\n| 1 | crane | bird |\n| 2 | snow leopard | cat |\n| 3 | heron |",
    "headings": "## Birds\ncrane\n## Cats\nsnow leopard\n### More birds:\nheron",
    "thoughts": "<think>The user wants\nanimals, say lion</think>\ncrane\nsnow leopard\nheron",
    "a sentence": "crane\nsnow leopard\nheron\nI have tried to keep to the style of the list above",
    "windows": "crane\r\nsnow leopard\r\nheron\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_names(shape: str) -> None:
    assert [name.lower() for name in names_in(SHAPES[shape], ["grey wolf", "dog"])] == THREE


@pytest.mark.parametrize(
    "answer",
    ["", "\n\n", "Sorry, I cannot help with that.", "None", "```\n```", "[]", "{}", "[1, 2]", "?", "\0", "1.\n2."],
)
def test_what_holds_no_name(answer: str) -> None:
    assert names_in(answer, ["dog"]) == []


LINES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"[-*0-9.)\[\] ]{0,5}[a-zA-Z_ ]{0,12}[-:,;(\"'*.!?|\]} ]{0,4}[a-z ]{0,8}", fullmatch=True),
        st.sampled_from(list(SHAPES.values())),
    ),
    max_size=6,
).map("\n".join)


@given(LINES, st.lists(st.sampled_from(["dog", "grey wolf", "River", "707", "Crane"]), max_size=3))
@example('["a: b, c, d"]', [])
@example("a) b) - c", [])
def test_names_are_distinct_new_and_stay_as_they_are(answer: str, trained: list[str]) -> None:
    names = names_in(answer, trained)
    keys = [key(name) for name in names]
    assert all(keys)
    assert len(set(keys)) == len(keys)
    assert not {key(name) for name in trained} & set(keys)
    assert names_in("\n".join(names), trained) == names
