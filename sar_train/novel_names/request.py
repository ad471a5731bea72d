"""What a language model is asked for: the text is ``sar_train/assets/novel_request.txt``.

It holds the names of the training classes and says by a caption what they are about. It names neither the dataset,
which a model may know by heart, nor any class that the run is judged on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from sar_train.novel_names.source import Wanted

FILE = Path(__file__).parents[1] / "assets" / "novel_request.txt"
AT_ONCE = 100
"""Names per request; long lists tire small models."""


def request(wanted: Wanted, given: Sequence[str] = (), at_once: int = AT_ONCE) -> str:
    """The text to ask with.

    Args:
        wanted: training names, how many to list, caption.
        given: names that were listed before; those that the run is judged on are left out of the request.
        at_once: how many names to ask for at most.
    """
    told = [name for name in given if not wanted.judged(name)]
    before = "\n\nThese were listed already, list others:\n" + "\n".join(told) if told else ""
    return Template(FILE.read_text(encoding="utf-8")).substitute(
        caption=wanted.template.replace("{}", "[class]"),
        names="\n".join(name.replace("_", " ") for name in wanted.trained),
        count=min(wanted.count, at_once),
        given=before,
    )
