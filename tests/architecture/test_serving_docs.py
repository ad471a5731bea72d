"""The pages on the server: their examples are run, their tables compared with the code."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image
from support.servers import Server, serving

from sar_infer import client
from sar_infer.cli import serve as cli
from sar_infer.encoders.waiting import TRIAL_SECONDS
from sar_infer.images import jpeg
from sar_infer.images import load as images
from sar_infer.server import connection, run
from sar_infer.server import request as body
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.workers import LOADING_SECONDS
from sar_infer.server.problems import CODES, Problem
from scripts import readme_commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("serving", "http", "operate")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = [block for page in PAGES for block in readme_commands.read(page)]
SHOWN = re.compile(r"\n```(json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = "a key for tests"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Server]]:
    """One without a key, and one with a key and a bank file."""
    file = str(tmp_path_factory.mktemp("bank") / "mine.safetensors")
    with serving() as open_to_all, serving("--bank", file, key=KEY) as keyed:
        yield {False: open_to_all, True: keyed}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photo."""
    data = pytest.importorskip("skimage").__path__[0]
    folder = tmp_path_factory.mktemp("docs")
    Image.open(Path(data) / "data" / "coffee.png").convert("RGB").save(folder / "photo.jpg", quality=90)
    return folder


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = TEXT.partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[1].splitlines()]


def shown_after(block: readme_commands.Block) -> tuple[str, str] | None:
    """Language and content of the answer that stands right behind a block."""
    lines = block.file.read_text(encoding="utf-8").split("\n")
    rest = "\n" + "\n".join(lines[block.line + block.body.count("\n") + 1 :]).lstrip("\n")
    answer = SHOWN.match(rest)
    return None if answer is None else (answer[1], answer[2])


def differences(shown: Any, actual: Any, where: str = "answer") -> list[str]:
    """What is not as shown: keys, types, whole numbers, text; "…" is anything, and fractions are not compared."""
    if shown == "…" or (isinstance(shown, float) and isinstance(actual, float | int)):
        return []
    if isinstance(shown, str) and shown.endswith("…") and isinstance(actual, str):
        return [] if actual.startswith(shown[:-1]) else [f"{where}: {actual!r}, not {shown!r}"]
    if isinstance(shown, dict) and isinstance(actual, dict):
        if "…" not in shown and shown.keys() != actual.keys():
            return [f"{where}: has {sorted(actual)}, not {sorted(shown)}"]
        return [d for key in shown if key != "…" for d in differences(shown[key], actual.get(key), f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(actual, list):
        pairs = shown[:-1] if shown[-1:] == ["…"] else shown
        if pairs is shown and len(shown) != len(actual):
            return [f"{where}: {len(actual)} items, not {len(shown)}"]
        return [d for i, item in enumerate(pairs) for d in differences(item, actual[i], f"{where}[{i}]")]
    return [] if shown == actual else [f"{where}: {actual!r}, not {shown!r}"]


def test_every_command_shown_is_marked() -> None:
    assert [f"{block.file.stem} {block.line}" for block in BLOCKS if block.mark is None] == []


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.mark and b.mark["run"]], ids=lambda block: f"{block.file.stem} {block.line}"
)
def test_what_is_shown_is_what_happens(
    block: readme_commands.Block, servers: dict[bool, Server], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks run in order; those that read ``$SAR_API_KEY`` talk to the server with a key."""
    assert block.language in ("python", "sh")
    keyed = "SAR_API_KEY" in block.body
    if keyed:
        monkeypatch.setenv("SAR_API_KEY", KEY)
    body = block.body.replace("localhost:8000", f"127.0.0.1:{servers[keyed].port}")
    assert body != block.body
    output = scratch / "output"
    if block.language == "sh":
        body = f"{{\n{body}}} > {output}"
    else:
        body = f"import sys\nsys.stdout = open({str(output)!r}, 'w')\n{body}\nsys.stdout.close()"
    assert readme_commands.execute(block.language, body, scratch)[1] is None
    actual, shown = output.read_text("utf-8"), shown_after(block)
    if shown is None:
        assert '"code":' not in actual
    elif shown[0] == "json":
        assert differences(json.loads(shown[1]), json.loads(actual)) == []
    else:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(shown[1], actual, flags), actual


def test_every_option_and_key_named_exists() -> None:
    params = cli.main.get_params(click.Context(cli.main))
    options = {name for option in params for name in (*option.opts, *option.secondary_opts)}
    named = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert len(named) > 5
    assert named - options == set()
    limits = {f"--{key}" for key in re.findall(r"over `([a-z-]+)`|each of `([a-z-]+)`", TEXT) for key in key if key}
    assert len(limits) > 4
    assert limits - options == set()


def test_every_code_is_in_the_table_with_its_status() -> None:
    table = sorted((int(status), code.strip("`")) for status, code, _ in rows("## Status codes"))
    assert table == sorted((Problem(code, "").status, code) for code in CODES)
    assert [int(status) for status, _, _ in rows("## Status codes")] == [status for status, _ in table]


def test_every_metric_named_exists_with_its_labels() -> None:
    endings = {"counter": "_total", "info": "_info"}
    metrics = set()
    for metric in (value for value in vars(Metrics()).values() if hasattr(value, "_labelnames")):
        labels = f"{{{','.join(metric._labelnames)}}}" if metric._labelnames else ""
        metrics.add(metric._name + endings.get(metric._type, "") + labels)
    named = {row[0] for row in rows("### Metrics")}
    assert len(named) > 5
    assert {name.strip("`") for name in named} - metrics == set()


def test_fixed_limits_are_the_codes() -> None:
    limits = [
        f"| image | side {images.MAX_SIDE:,} pixels, aspect ratio 1:{images.MAX_RATIO} |",
        f"| JPEG | {jpeg.MAX_SCANS} scans; scans × pixels {jpeg.MAX_SCANNED_PIXELS // 10**6:,} million; "
        "no arithmetic coding |",
        f"| class name or phrase | {body.LONGEST_TEXT} characters; {body.MOST_PHRASES} phrases for a class |",
        f"| headers | {connection.HEADER_BYTES // 1024} KiB in {connection.HEADER_SECONDS:g} seconds |",
        f"| JSON body | {body._MOST_VALUES:,} values; {body._MOST_PARTS:,} lists, objects and fields, plus 4 for each "
        "of `max-classes` |",
        f"| idle connection | {run._KEEP_ALIVE_SECONDS} seconds |",
        f"| graph | {TRIAL_SECONDS:g} seconds to open or for a first run; longer is refused |",
        f"not ready after {LOADING_SECONDS:g} s,",
    ]
    assert [limit for limit in limits if limit not in TEXT] == []
    assert f"| connections | `ulimit -n` less {connection.RESERVE};" in TEXT
    assert f"at most {client.LONGEST_PAUSE:g} seconds" in " ".join(TEXT.split())
