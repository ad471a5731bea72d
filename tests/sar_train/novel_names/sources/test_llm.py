"""A language model as a source: rounds, what is kept, what it is never told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.blobs import write_blobs
from support.llm import KEY, MODEL, Reply, serve

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names import NovelNames, SourceOptions, novel_names, open_novel_source
from sar_train.training import trainer

LISTED = [f"{a} {b}" for a in ("red", "blue", "green", "grey") for b in ("fox", "owl", "crab", "whale", "lynx")]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_LLM_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def gather(url: str, cache: Path | None, **settings: object) -> NovelNames:
    source = open_novel_source("llm", SourceOptions(cache_dir=cache, llm_url=url, llm_model=MODEL))
    return novel_names(source, ["dog", "grey_wolf"], **settings)


def test_rounds_go_on_until_there_are_enough(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED[:8])), Reply("Sure!\n" + "\n".join(LISTED[6:15]))) as stub:
        found = gather(stub.url, tmp_path, count=12)
    assert found.names == tuple(LISTED[:12])
    assert (found.warnings, found.model, found.source) == ((), f"{MODEL}-2026-11-25", "llm")
    assert found.summary["model"] == found.model
    assert found.summary["names"] == LISTED[:12]
    first, second = stub.texts()
    assert "dog\ngrey wolf\n" in first
    assert "listed already" not in first
    assert "\n".join(LISTED[:8]) in second


def test_enough_at_once_is_one_request(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED))) as stub:
        assert len(gather(stub.url, tmp_path, count=20).names) == 20
    assert len(stub.requests) == 1


@pytest.mark.parametrize("last", ["\n".join(LISTED), "There are no further names."])
def test_a_round_without_anything_new_is_the_last(tmp_path: Path, last: str) -> None:
    with serve(Reply("\n".join(LISTED)), Reply(last)) as stub:
        found = gather(stub.url, tmp_path, count=50)
    assert found.names == tuple(LISTED)
    assert found.warnings == ("llm gave 20 novel names, fewer than the 50 asked for",)
    assert len(stub.requests) == 2


def test_rounds_have_an_end() -> None:
    with serve(*(Reply(f"thing {chr(97 + i)}") for i in range(20))) as stub:
        assert len(gather(stub.url, None, count=50).names) == len(stub.requests) == 4


def test_a_second_run_needs_no_network(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED)), Reply("That's all.")) as stub:
        first = gather(stub.url, tmp_path, count=50)
    assert gather(stub.url, tmp_path, count=50) == first
    assert gather("http://127.0.0.1:1/v1", tmp_path, count=50) == first
    assert all(KEY not in path.read_text() and stub.url not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_what_came_before_an_error_is_kept(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED[:5])), Reply("no", 404)) as stub, pytest.raises(ConfigError, match="404"):
        gather(stub.url, tmp_path, count=12)
    with serve(Reply("\n".join(LISTED[5:]))) as stub:
        assert gather(stub.url, tmp_path, count=12).names == tuple(LISTED[:12])
    assert len(stub.requests) == 1


def test_names_that_the_run_is_judged_on_are_counted_and_stand_in_no_request(tmp_path: Path) -> None:
    new = ["red_fox", "airplane"]
    with serve(Reply("Red Fox\naeroplane\nblue owl"), Reply("green crab\nlynx")) as stub:
        found = gather(stub.url, tmp_path, count=3, new=new)
    assert (found.names, found.overlap) == (("blue owl", "green crab", "lynx"), 2)
    assert len(stub.requests) == 2
    sent = "".join(map(str, stub.requests)).lower()
    assert not any(name in sent for name in ("red fox", "red_fox", "airplane", "aeroplane"))
    kept = gather(stub.url, tmp_path, count=3, new=new, exclude=False)
    assert (kept.names, kept.overlap) == (("red fox", "aeroplane", "blue owl"), 2)


@pytest.mark.parametrize("text", ["Sorry, I cannot help with that.", "dog\ngrey wolf"])
def test_a_useless_answer_is_said_and_not_kept(tmp_path: Path, text: str) -> None:
    with serve(Reply(text)) as stub, pytest.raises(DataError, match=f"'{text[:3]}"):
        gather(stub.url, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SourceOptions(), "--llm-url .*--llm-model"),
        (SourceOptions(llm_url="http://localhost/v1"), "need --llm-model"),
        (SourceOptions(llm_model="m"), r"need --llm-url \(SAR_LLM_URL\): "),
        (SourceOptions(llm_url="localhost", llm_model="m"), "URL"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(options: SourceOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_novel_source("llm", options)


def test_a_run_keeps_the_model_and_its_names_and_no_key(tmp_path: Path) -> None:
    asked = {"novel": "llm", "novel_count": 3, "llm_model": MODEL}
    config = dataclasses.replace(write_blobs(tmp_path), cache_dir=str(tmp_path / "cache"), **asked)
    with serve(Reply("zebra\nmoose\nlynx")) as stub:
        record = trainer.run(dataclasses.replace(config, llm_url=stub.url), tmp_path / "first").record
    expected = {"source": "llm", "count": 3, "overlap": 0, "model": f"{MODEL}-2026-11-25"}
    assert record["novel"] == expected | {"names": ["zebra", "moose", "lynx"]}
    assert record["config"]["llm_model"] == MODEL
    again = trainer.run(dataclasses.replace(config, llm_url="http://127.0.0.1:1"), tmp_path / "second").record
    assert again["novel"] == record["novel"]
    assert again["metrics"] == record["metrics"]
    assert KEY not in json.dumps(record)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
