"""Pages of a server without a key, which the tests of a file share."""

from __future__ import annotations

from typing import Any

import pytest
from support.browser import COFFEE, Watch, settled
from support.servers import Server


@pytest.fixture
def opened(open_page: Any, mini_server: Server) -> tuple[Any, Watch]:
    """Return ``/ui`` and its watch."""
    page: tuple[Any, Watch] = open_page(mini_server.url)
    return page


@pytest.fixture
def page(opened: tuple[Any, Watch]) -> Any:
    """Return ``/ui`` without a photo."""
    return opened[0]


@pytest.fixture
def watch(opened: tuple[Any, Watch]) -> Watch:
    """Return the watch of ``page``."""
    return opened[1]


@pytest.fixture
def cup(page: Any) -> Any:
    """Return ``/ui`` with the ranking of a cup of coffee."""
    page.set_input_files("#files", COFFEE)
    settled(page)
    return page
