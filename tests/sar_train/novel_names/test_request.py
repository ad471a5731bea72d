"""What a model is asked for holds the training names, and nothing that it should not know."""

from __future__ import annotations

from sar_train.novel_names import Wanted
from sar_train.novel_names.request import request

WANTED = Wanted(["sea_lake", "river $1"], 400, template="a centered satellite photo of {}.")


def test_it_says_what_is_wanted() -> None:
    text = request(WANTED)
    assert '"a centered satellite photo of [class]."' in text
    assert "\nsea lake\nriver $1\n" in text
    assert "List 100 further class names" in text
    assert "List 7 further" in request(Wanted(["a"], 7))
    assert "{" not in text
    assert "listed already" not in text


def test_what_was_listed_is_told_but_for_what_the_run_is_judged_on() -> None:
    wanted = Wanted(["river"], 400, judged=lambda name: name == "forest")
    text = request(wanted, ["glacier", "forest", "dune"])
    assert "list others:\nglacier\ndune\n" in text
    assert "forest" not in text
