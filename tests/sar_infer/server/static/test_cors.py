"""The snippet of docs/serving.md in a browser, on a page of another origin than the server's."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import COFFEE
from support.servers import Server, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
DOCS = Path(__file__).parents[4] / "docs" / "serving.md"
CALL = """async ([source, photo, key]) => {
    const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
    const classify = new Function(`return ${source}`)();
    return classify(new Blob([bytes], { type: "image/png" }), key).catch((error) => `refused: ${error.message}`);
}"""


@pytest.fixture
def page(browser: Any, mini_server: Server) -> Iterator[Any]:
    """Return a page whose origin is that of a server, without the policy that ``/ui`` has."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{mini_server.url}/healthz")
    yield page
    context.close()


def call(page: Any, server: Server, key: str) -> Any:
    (source,) = re.findall(r"^```js\n(.*?)^```$", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    source = source.replace("http://localhost:8000", server.url)
    assert server.url in source
    return page.evaluate(CALL, [source, base64.b64encode(COFFEE.read_bytes()).decode(), key])


def test_a_page_of_a_named_origin_classifies_a_file_with_a_key(page, mini_server) -> None:
    with serving("--workers", "0", "--cors-origin", mini_server.url, key="k") as server:
        predictions = call(page, server, "k")
        assert [prediction["rank"] for prediction in predictions] == [1, 2, 3]
        assert predictions[0]["label"] == "espresso"
        assert call(page, server, "wrong") == "refused: the key in the header Authorization is not this server's"


def test_a_page_of_any_other_origin_does_not(page) -> None:
    with serving("--workers", "0", "--cors-origin", "https://shop.example", key="k") as server:
        assert call(page, server, "k") == "refused: Failed to fetch"
