"""Several things in one photo on the page: their names, and the crops where they are most probable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from support.browser import CONTRASTS, labels, settled
from support.servers import local_server

from sar_infer import Classifier
from sar_infer.server.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CLOTHES = Path(__file__).parents[4] / "examples" / "clothes"


def test_each_thing_has_a_bar_and_an_outline(open_page: Any, tmp_path: Path) -> None:
    names = ("hat", "trousers", "dress")
    photos = {name: sorted((CLOTHES / "train" / name).iterdir())[:6] for name in names}
    Classifier.from_examples(photos).save(tmp_path / "bank.safetensors")
    both = Image.new("RGB", (400, 200))
    for at, name in enumerate(names[:2]):
        first = min((CLOTHES / "train" / name).iterdir())
        both.paste(ImageOps.fit(Image.open(first).convert("RGB"), (200, 200)), (200 * at, 0))
    both.save(tmp_path / "both.png")
    expected = Classifier.open(tmp_path / "bank.safetensors").classify(tmp_path / "both.png", several=True)
    assert expected.labels
    with local_server(Settings(bank=tmp_path / "bank.safetensors", device="cpu")) as local:
        page, _ = open_page(local.url)
        page.locator("#several").check()
        page.set_input_files("#files", tmp_path / "both.png")
        settled(page)
        assert labels(page) == [one.label for one in expected.labels]
        outlined = {name for text in page.locator("#boxes b").all_inner_texts() for name in text.split(", ")}
        assert outlined == {*labels(page)}
        image, box = (page.locator(name).bounding_box() for name in ("#preview", "#boxes"))
        assert box["width"] / box["height"] == pytest.approx(2, rel=0.01)
        assert box["x"] + box["width"] / 2 == pytest.approx(image["x"] + image["width"] / 2, abs=2)
        assert page.evaluate(CONTRASTS) == []
        page.locator("#several").uncheck()
        settled(page)
        assert (len(labels(page)), page.locator("#boxes b").count()) == (3, 0)
