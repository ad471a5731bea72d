"""A chat model: rounds of requests, the endpoint, and the answers that are kept."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
from support.blobs import write_blobs
from support.folders import listing
from support.llm import KEY, MODEL, Reply, serve

from sar_train.errors import ConfigError, DataError, SarTrainError
from sar_train.novel_names import NameRequest, NovelNames, SourceOptions, novel_names, open_novel_source
from sar_train.novel_names.sources.chat_model import FOLDER, Answer, AnswerCache, Endpoint, request_text
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


AT_ONCE = {"Retry-After": "0.05"}


def ask(url: str, **settings: float) -> Answer:
    return Endpoint(url, MODEL, **settings).ask("List names.", seed=7)


def test_a_question_and_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another")
    with serve(Reply("fox\nwolf")) as stub:
        assert ask(stub.url) == Answer("fox\nwolf", f"{MODEL}-2026-11-25")
    ((path, headers, body),) = stub.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "another" not in str(headers)
    assert body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "List names."}],
        "temperature": 0.0,
        "seed": 7,
    }


def test_no_key_is_no_obstacle_and_the_whole_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAR_LLM_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    with serve(Reply("fox", model=None)) as stub:
        assert ask(f"{stub.url}/chat/completions") == Answer("fox", MODEL)
    ((path, headers, _),) = stub.requests
    assert path == "/v1/chat/completions"
    assert "another" not in str(headers)


def test_an_answer_that_was_cut_off_loses_its_last_line() -> None:
    with serve(Reply("fox\nwolf\nbrown be", finish="length")) as stub:
        assert ask(stub.url).text == "fox\nwolf"
    with serve(Reply("fox, wolf, brown be", finish="length")) as stub:
        assert ask(stub.url).text == "fox, wolf"


@pytest.mark.parametrize("bad", [Reply("slow down", 429, headers=AT_ONCE), Reply("oops", 503, headers=AT_ONCE)])
def test_what_passes_is_waited_for(bad: Reply) -> None:
    with serve(bad, bad, Reply("fox")) as stub:
        assert ask(stub.url).text == "fox"
    assert len(stub.requests) == 3


def test_retry_after_is_kept() -> None:
    with serve(Reply("slow down", 429, headers={"Retry-After": "0.6"}), Reply("fox")) as stub:
        began = time.monotonic()
        ask(stub.url)
        assert time.monotonic() - began > 0.55


def test_settings_that_a_model_does_not_take_are_left_out() -> None:
    refused = Reply("Unsupported value: 'temperature' does not support 0", 400)
    with serve(refused, Reply("Extra inputs are not permitted: seed", 422), Reply("fox")) as stub:
        assert ask(stub.url).text == "fox"
    assert [body.keys() & {"temperature", "seed"} for _, _, body in stub.requests] == [
        {"temperature", "seed"},
        {"seed"},
        set(),
    ]


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(f"Incorrect API key provided: {KEY}", 401), ConfigError, "refused the key in SAR_LLM_KEY (status 401)"),
        (Reply("no", 403), ConfigError, "refused the key in SAR_LLM_KEY (status 403)"),
        (Reply("model 'stub-1' not found", 404), ConfigError, "stub-1"),
        (
            Reply("slow down", 429, headers=AT_ONCE),
            DataError,
            "(status 429, Retry-After: 0.05), in up to 3 attempts",
        ),
        (Reply("slow", 429, headers={"Retry-After": "4000"}), DataError, "(status 429, Retry-After: 4000)"),
        (Reply("oops", 500, headers=AT_ONCE), DataError, "(status 500), in up to 3 attempts"),
        (Reply("too long", 400), DataError, "(status 400: too long)"),
        (Reply(f"strange {KEY}", 418), DataError, "(status 418: strange …)"),
        (Reply(body=b"not json"), DataError, "chat completion"),
        (Reply(body=b"<html>hello</html>", kind="text/html"), DataError, "chat completion"),
        (Reply(body=b"\xff\xfe\x00"), DataError, "chat completion"),
        (Reply(body=b"[]"), DataError, "chat completion"),
        (Reply(body=b'{"choices": []}'), DataError, "chat completion"),
        (Reply(body=b'{"choices": [{"message": {"content": null}}]}'), DataError, "empty"),
        (Reply(" \n"), DataError, "empty"),
        (Reply(status=500, body=b"<html>", kind="text/html", headers=AT_ONCE), DataError, "(status 500)"),
    ],
)
def test_every_failure_is_one_line_without_the_key(reply: Reply, kind: type[SarTrainError], words: str) -> None:
    with serve(reply) as stub, pytest.raises(kind) as caught:
        ask(stub.url.replace("//", "//user:word@"), retries=2)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert KEY not in message
    assert "word@" not in message
    assert caught.value.__suppress_context__ or caught.value.__cause__ is None
    assert len(stub.requests) <= 3


def test_no_key_where_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAR_LLM_KEY")
    with serve(Reply("", 401)) as stub, pytest.raises(ConfigError, match="SAR_LLM_KEY"):
        ask(stub.url)


@pytest.mark.parametrize("key", ["schlüssel", "two words", "a\x01b"])
def test_what_is_no_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("SAR_LLM_KEY", key)
    with pytest.raises(ConfigError, match="SAR_LLM_KEY") as caught:
        ask("http://127.0.0.1:1/v1")
    assert key not in str(caught.value)


def test_blanks_around_a_key_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_LLM_KEY", f"{KEY}\n")
    with serve(Reply("fox")) as stub:
        ask(stub.url)
    assert stub.requests[0][1]["authorization"] == f"Bearer {KEY}"


def test_a_slow_server_is_given_up() -> None:
    with serve(Reply("fox", delay=0.5)) as stub, pytest.raises(DataError, match=r"0\.1 s, in up to 1 "):
        ask(stub.url, timeout=0.1, retries=0)


def test_nobody_there() -> None:
    with serve(Reply()) as stub:
        pass
    with pytest.raises(DataError, match=f"{stub.url}.*--llm-url"):
        ask(stub.url, retries=0)


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://a/v1", "http://", "http://[", "http://a:99999/v1", ""])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="--llm-url"):
        Endpoint(url, MODEL)


def test_a_missing_client_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"sar-clip\[llm\]"):
        ask("http://127.0.0.1:1/v1")


def test_an_answer_is_found_by_model_seed_and_request(tmp_path: Path) -> None:
    answers = AnswerCache(tmp_path / "new")
    given = Answer("fox\nBär", "stub-1-2026")
    assert answers.get("stub-1", 1, "List.") is None
    answers.put("stub-1", 1, "List.", given)
    assert AnswerCache(tmp_path / "new").get("stub-1", 1, "List.") == given
    for other in (("stub-2", 1, "List."), ("stub-1", 2, "List."), ("stub-1", 1, "List!")):
        assert answers.get(*other) is None


def test_what_is_kept(tmp_path: Path) -> None:
    AnswerCache(tmp_path).put("stub-1", 3, "List.", Answer("fox", "stub-1-2026"))
    (name,) = listing(tmp_path / FOLDER)
    kept = json.loads((tmp_path / FOLDER / name).read_text(encoding="utf-8"))
    assert kept.pop("date").startswith("20")
    assert kept == {
        "model": "stub-1-2026",
        "asked_for": "stub-1",
        "temperature": 0.0,
        "seed": 3,
        "request": "List.",
        "answer": "fox",
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"answer": 1, "model": "m"}', b"\xff"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    answers = AnswerCache(tmp_path)
    answers.put("m", 1, "r", Answer("fox", "m"))
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(content)
    assert answers.get("m", 1, "r") is None


def test_nothing_is_kept_without_a_place_and_a_bad_place_is_said(tmp_path: Path) -> None:
    AnswerCache(None).put("m", 1, "r", Answer("fox", "m"))
    assert AnswerCache(None).get("m", 1, "r") is None
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=str(tmp_path / "file")):
        AnswerCache(tmp_path / "file").put("m", 1, "r", Answer("fox", "m"))


WANTED = NameRequest(["sea_lake", "river $1"], 400, template="a centered satellite photo of {}.")


def test_it_says_what_is_wanted() -> None:
    text = request_text(WANTED)
    assert '"a centered satellite photo of [class]."' in text
    assert "\nsea lake\nriver $1\n" in text
    assert "List 100 further class names" in text
    assert "List 7 further" in request_text(NameRequest(["a"], 7))
    assert "{" not in text
    assert "listed already" not in text


def test_what_was_listed_is_told_but_for_what_the_run_is_judged_on() -> None:
    wanted = NameRequest(["river"], 400, is_evaluated=lambda name: name == "forest")
    text = request_text(wanted, ["glacier", "forest", "dune"])
    assert "list others:\nglacier\ndune\n" in text
    assert "forest" not in text
