"""The page of an evaluation as a file: what it may load, and what hostile names do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.browser import WINDOWS, visited

from sar_infer.errors import WriteError
from sar_infer.evaluation.evaluation import Answer, Evaluation, evaluate
from sar_infer.evaluation.html import write_page
from sar_infer.evaluation.report import write_evaluation

ATTACK = "</script><img src=x onerror=document.title='taken'>\u2028<!--"
NAMES = ("hat", ATTACK, "\u202egnp.tac", "w" * 200)


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    answers = []
    for number in range(24):
        label, best = NAMES[number % 4], NAMES[(number + number // 12) % 4]
        photo = tmp_path / f"{number}.png"
        if number != 13:  # one is gone by the time the page is made
            Image.new("RGB", (60, 40), (10 * number, 99, 99)).save(photo)
        rank = 1 if label == best else 2
        answers.append(Answer(str(photo), label, best, 0.3 + number / 40, rank, 0.2, number / 48))
    answers += [Answer("owl.png", "owl", NAMES[0], 0.3, None, None, at, absent=True) for at in (0.2, 0.45, 0.9)]
    return evaluate(answers, 9, tells_unknown=True, threshold=0.4)


def data_of(page: str) -> Any:
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(content)


def written(folder: Path, title: str, data: dict[str, Any]) -> str:
    write_page(folder / "page.html", "evaluation", title, data)
    return (folder / "page.html").read_text("utf-8")


def test_the_page_holds_its_data_whatever_they_are(tmp_path: Path) -> None:
    data = {"names": [*NAMES, "\ud800", "&lt;"], "count": 3}
    page = written(tmp_path, ATTACK, data)
    assert data_of(page) == {"title": ATTACK, **data}
    assert page.count("</script>") == 2
    assert ATTACK not in page
    with pytest.raises(ValueError, match="JSON"):
        written(tmp_path, "x", {"share": float("nan")})


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    page = written(tmp_path, "x", {})
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    inline = [re.findall(rf"<{tag}>(.*?)</{tag[:6]}", page, re.DOTALL) for tag in ("style", 'script type="module"')]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for (text,) in inline]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"none/x\.html: cannot be written"):
        write_page(tmp_path / "none" / "x.html", "evaluation", "x", {})


def test_photos_are_named_by_folder_and_file_and_one_that_is_gone_has_no_picture(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    write_evaluation(tmp_path / "page.html", evaluation, "x")
    text = (tmp_path / "page.html").read_text("utf-8")
    data = data_of(text)
    assert str(tmp_path) not in text
    pictures = {photo["image"]: photo["picture"] for photo in data["photos"]}
    assert pictures.keys() == {f"{tmp_path.name}/{number}.png" for number in range(12, 24)}
    assert [name for name, picture in pictures.items() if picture is None] == [f"{tmp_path.name}/13.png"]
    thresholds = sorted((number / 48 for number in range(24)), reverse=True)
    above = [
        [sum(number / 48 > at for number in range(24)) / 24, sum(one > at for one in (0.2, 0.45, 0.9)) / 3]
        for at in thresholds
    ]
    assert data["curve"] == [*above, [1, 1]]
    worst = [data["photos"][index]["score"] for index in data["worst"]]
    assert worst == sorted(worst, reverse=True)
    assert len(worst) == data["mistakes"] == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, evaluation: Evaluation, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "page.html"
    write_evaluation(path, evaluation, f"Evaluation of {ATTACK}", {"bank": ATTACK})
    for settings in WINDOWS:
        with visited(browser, path, color_scheme=scheme, **settings) as page:
            assert page.title().startswith("Evaluation of </script>")  # no script of a name has set it
            assert page.locator("h1").inner_text().startswith("Evaluation of </script>")
            assert page.locator("#worst figure").count() == 12
            assert page.locator("#matrix .right").count() == 4
            page.locator("#matrix .wrong").first.click()
            assert page.locator("#cell-photos figure").count() == 3
            assert page.locator("#cell").inner_text().endswith("3 of 6")
            page.locator("#filter").select_option(label="hat")
            assert page.locator("#worst figure").count() == 3
            assert page.locator("#trade circle").count() == 6
            assert page.locator("#thresholds tr.now").inner_text().split()[:2] == ["now", "0.400"]
