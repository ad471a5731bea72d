"""Names are judged by what two renderers make of them: they must come out as the text that went in."""

from __future__ import annotations

import html
import re

import markdown
from hypothesis import given
from hypothesis import strategies as st

from sar_infer.bundle.card import code_block, escaped, table

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "**bold** _em_ `code` ~~gone~~",
    "[link](javascript:alert(1)) ![image](x)",
    "# heading",
    "&lt;tag&gt; &amp;",
    "@someone $x^2$ \\(y\\)",
    "two\nlines\r\n\ttabs",
    "back\\slash \\* \\<",
]


def shown(text: str) -> str:
    """What a reader sees of a paragraph of rendered Markdown; a tag beside the paragraph's own is an error."""
    page = markdown.markdown("Name " + text, extensions=["tables"])
    paragraph = re.fullmatch(r"<p>Name ?([^<>]*)</p>", page, re.DOTALL)
    assert paragraph is not None, page
    return html.unescape(paragraph[1])


def test_markup_comes_out_as_it_went_in() -> None:
    for text in HOSTILE:
        assert shown(escaped(text)) == " ".join(text.split())


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from("<>&|*_`[]()\\#!~$@ \n")))
def test_text_comes_out_as_it_went_in(text: str) -> None:
    assert shown(escaped(text)) == " ".join(text.split())


def test_plain_names_stay_readable_and_invisible_characters_are_seen() -> None:
    assert escaped("Jack-o'-lantern, 50% off (v1.0)") == "Jack-o'-lantern, 50% off (v1.0)"
    assert escaped("a\u202eb\u0000c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_nothing_ends_a_code_block() -> None:
    page = markdown.markdown(code_block("sar-export a\n\n```\n</code><b>x</b>\n# heading"))
    assert page.count("<") == 4, page


def test_a_cell_with_a_bar_is_one_cell() -> None:
    page = markdown.markdown(table(["class", "score"], [[escaped("a|b"), "1"]]), extensions=["tables"])
    assert [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)] == ["a|b", "1"]
