"""A chat model: rounds of requests, the endpoint, and the answers that are kept."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.blobs import write_blobs
from support.llm import KEY, MODEL, Reply, serve

from sar_train.errors import ConfigError, DataError, SarTrainError
from sar_train.novel_names.chat_model import FOLDER, ask, request_text
from sar_train.novel_names.gather import NovelNames, novel_names
from sar_train.novel_names.source import NameRequest, SourceOptions, open_novel_source
from sar_train.training import trainer

LISTED = [f"{a} {b}" for a in ("red", "blue", "green", "grey") for b in ("fox", "owl", "crab", "whale", "lynx")]
RETRY = {"Retry-After": "0.05"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_LLM_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def gather(url: str, cache: Path | None, **settings: object) -> NovelNames:
    source = open_novel_source("llm", SourceOptions(cache_dir=cache, llm_url=url, llm_model=MODEL))
    return novel_names(source, ["dog", "grey_wolf"], **settings)


def asked(url: str, **settings: Any) -> tuple[str, str]:
    return ask(url, MODEL, "List names.", 7, **settings)


def test_rounds_go_on_until_there_are_enough(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED[:8])), Reply("Sure!\n" + "\n".join(LISTED[6:15]))) as stub:
        novel = gather(stub.url, tmp_path, count=12)
    assert (novel.names, novel.warnings, novel.source) == (tuple(LISTED[:12]), (), "llm")
    assert novel.summary["model"] == novel.model == f"{MODEL}-2026-11-25"
    assert novel.summary["names"] == LISTED[:12]
    first, second = stub.texts()
    assert "dog\ngrey wolf\n" in first
    assert "listed already" not in first
    assert "\n".join(LISTED[:8]) in second
    with serve(Reply("\n".join(LISTED))) as stub:
        assert len(gather(stub.url, None, count=20).names) == 20
    assert len(stub.requests) == 1


@pytest.mark.parametrize("last", ["\n".join(LISTED), "There are no further names."])
def test_a_round_without_anything_new_is_the_last(tmp_path: Path, last: str) -> None:
    with serve(Reply("\n".join(LISTED)), Reply(last)) as stub:
        novel = gather(stub.url, tmp_path, count=50)
    assert novel.names == tuple(LISTED)
    assert novel.warnings == ("llm gave 20 auxiliary names, fewer than the 50 asked for",)
    assert len(stub.requests) == 2


def test_answers_are_kept_by_model_seed_and_request(tmp_path: Path) -> None:
    with serve(Reply("\n".join(LISTED[:5])), Reply("no", 404)) as stub, pytest.raises(ConfigError, match="404"):
        gather(stub.url, tmp_path, count=12, seed=3)
    (kept,) = (json.loads(path.read_text("utf-8")) for path in (tmp_path / FOLDER).iterdir())
    assert kept.pop("date").startswith("20")
    assert kept.pop("request") == stub.texts()[0]
    assert kept.pop("answer") == "\n".join(LISTED[:5])
    assert kept == {"model": f"{MODEL}-2026-11-25", "asked_for": MODEL, "temperature": 0.0, "seed": 3}
    with serve(Reply("\n".join(LISTED[5:]))) as stub:
        novel = gather(stub.url, tmp_path, count=12, seed=3)
    assert (novel.names, len(stub.requests)) == (tuple(LISTED[:12]), 1)
    assert gather("http://127.0.0.1:1/v1", tmp_path, count=12, seed=3) == novel  # needs no network
    for other in ({"seed": 4}, {"count": 13}, {"template": "a sketch of a {}."}):
        with serve(Reply("\n".join(LISTED))) as stub:
            gather(stub.url, tmp_path, **({"count": 12, "seed": 3} | other))
        assert len(stub.requests) == 1
    assert all(KEY not in path.read_text() and "http" not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_evaluated_names_are_counted_and_stand_in_no_request(tmp_path: Path) -> None:
    new = ["red_fox", "airplane"]
    with serve(Reply("Red Fox\naeroplane\nblue owl"), Reply("green crab\nlynx")) as stub:
        novel = gather(stub.url, tmp_path, count=3, new=new)
    assert (novel.names, novel.overlap) == (("blue owl", "green crab", "lynx"), 2)
    assert len(stub.requests) == 2
    sent = "".join(map(str, stub.requests)).lower()
    assert not any(name in sent for name in ("red fox", "red_fox", "airplane", "aeroplane"))
    whole = gather(stub.url, tmp_path, count=3, new=new, exclude=False)
    assert (whole.names, whole.overlap) == (("Red Fox", "aeroplane", "blue owl"), 2)


def test_the_text_of_a_request() -> None:
    text = request_text(NameRequest(["sea_lake", "river $1"], 400, template="a centered satellite photo of {}."))
    assert '"a centered satellite photo of [class]."' in text
    assert "\nsea lake\nriver $1\n" in text
    assert "List 100 further class names" in text
    assert "List 7 further" in request_text(NameRequest(["a"], 7))
    assert "{" not in text


@pytest.mark.parametrize("text", ["Sorry, I cannot help with that.", "dog\ngrey wolf"])
def test_a_useless_answer_is_said_and_not_kept(tmp_path: Path, text: str) -> None:
    with serve(Reply(text)) as stub, pytest.raises(DataError, match=f"'{text[:3]}"):
        gather(stub.url, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "model", "words"),
    [
        (None, None, "--set llm-url=URL .*--set llm-model=NAME"),
        ("http://localhost/v1", None, "need --set llm-model=NAME"),
        (None, "m", r"need --set llm-url=URL \(SAR_LLM_URL\): "),
        *((url, "m", "llm-url: expected a base URL") for url in ("localhost:1", "ftp://a/v1", "http://", "http://[")),
        ("http://a:99999/v1", "m", "llm-url: expected a base URL"),
    ],
)
def test_options_are_looked_at_before_anything_is_asked(url: str | None, model: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_novel_source("llm", SourceOptions(llm_url=url, llm_model=model))


def test_a_run_keeps_the_model_and_its_names_and_no_key(tmp_path: Path) -> None:
    settings = {"novel": "llm", "novel_count": 3, "llm_model": MODEL}
    config = dataclasses.replace(write_blobs(tmp_path), cache_dir=str(tmp_path / "cache"), **settings)
    with serve(Reply("zebra\nmoose\nlynx")) as stub:
        record = trainer.run(dataclasses.replace(config, llm_url=stub.url), tmp_path / "first").record
    expected = {"source": "llm", "count": 3, "overlap": 0, "model": f"{MODEL}-2026-11-25"}
    assert record["novel"] == expected | {"names": ["zebra", "moose", "lynx"]}
    assert record["config"]["llm_model"] == MODEL
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", [KEY, f"{KEY}\n", None])
@pytest.mark.parametrize("end", ["", "/chat/completions"])
def test_a_question_and_its_answer(monkeypatch: pytest.MonkeyPatch, key: str | None, end: str) -> None:
    """The key is this program's own or none, and blanks around it are no part of it."""
    if key is None:
        monkeypatch.delenv("SAR_LLM_KEY")
    else:
        monkeypatch.setenv("SAR_LLM_KEY", key)
    with serve(Reply("fox\nwolf", model=None if end else MODEL)) as stub:
        assert asked(stub.url + end) == ("fox\nwolf", MODEL)
    ((path, headers, body),) = stub.requests
    assert path == "/v1/chat/completions"
    assert (headers["authorization"] == f"Bearer {KEY}") == bool(key)
    assert "another" not in str(headers)
    messages = [{"role": "user", "content": "List names."}]
    assert body == {"model": MODEL, "messages": messages, "temperature": 0.0, "seed": 7}


def test_settings_that_a_model_does_not_take_are_left_out() -> None:
    refused = Reply("Unsupported value: 'temperature' does not support 0", 400)
    with serve(refused, Reply("Extra inputs are not permitted: seed", 422), Reply("fox")) as stub:
        assert asked(stub.url)[0] == "fox"
    fixed = [body.keys() & {"temperature", "seed"} for _, _, body in stub.requests]
    assert fixed == [{"temperature", "seed"}, {"seed"}, set()]


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(f"Incorrect API key provided: {KEY}", 401), ConfigError, "refused the key in SAR_LLM_KEY (status 401)"),
        (Reply("model 'stub-1' not found", 404), ConfigError, "stub-1"),
        (Reply("slow", 429, headers=RETRY), DataError, "(status 429: slow); wait"),
        (Reply("oops", 500, headers=RETRY), DataError, "(status 500: oops); wait"),
        (Reply("too long", 400), DataError, "(status 400: too long)"),
        (Reply(f"strange {KEY}", 418), DataError, "(status 418: strange …)"),
        (Reply(body=b"<html>hello</html>", kind="text/html"), DataError, "chat completion"),
        (Reply(body=b"\xff\xfe\x00"), DataError, "chat completion"),
        (Reply(body=b"[]"), DataError, "chat completion"),
        (Reply(body=b'{"choices": []}'), DataError, "chat completion"),
        (Reply(body=b'{"choices": [{"message": {"content": null}}]}'), DataError, "empty"),
        (Reply(" \n"), DataError, "empty"),
    ],
)
def test_every_failure_is_one_line_without_the_key(reply: Reply, kind: type[SarTrainError], words: str) -> None:
    with serve(reply) as stub, pytest.raises(kind) as caught:
        asked(stub.url.replace("//", "//user:word@"), retries=2)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert KEY not in message
    assert "word@" not in message
    assert caught.value.__suppress_context__ or caught.value.__cause__ is None
    assert len(stub.requests) <= 3


def test_a_server_that_is_slow_or_not_there() -> None:
    with serve(Reply("fox", delay=0.5)) as stub, pytest.raises(DataError, match=r"0\.1 s; ask a faster"):
        asked(stub.url, timeout=0.1, retries=0)
    with pytest.raises(DataError, match=f"{stub.url}.*llm-url"):
        asked(stub.url, retries=0)


def test_a_missing_client_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install .\.\[llm\]"):
        asked("http://127.0.0.1:1/v1")
