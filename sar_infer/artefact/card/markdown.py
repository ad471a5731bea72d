"""Text of others in a Markdown page: whatever a class is called, it stays text in every renderer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[^\w\s.,;:/()%+=?'-]|_")
_UNSEEN = "\N{REPLACEMENT CHARACTER}"


def escaped(text: str) -> str:
    """One line on which no character is Markdown, HTML, a table's bar, a mention or a formula.

    Characters that can have a meaning become numeric references, which CommonMark never takes for markup. What cannot
    be seen, such as marks that turn the direction of writing, is shown as a replacement character.
    """
    line = "".join(character if character.isprintable() else _UNSEEN for character in " ".join(text.split()))
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};" if found[0].isascii() else found[0], line)


def code_block(text: str) -> str:
    """Text as it is, in a block that nothing inside it can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already. Columns after the first are numbers and stand to the right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
