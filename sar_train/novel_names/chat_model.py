"""A chat model as a source: the request, the OpenAI-compatible endpoint, and the answers that are stored.

The text of the request is ``sar_train/assets/novel_request.txt``. It holds the names of the training classes and says
by a caption what they are about; it names neither the dataset, which a model may know by heart, nor any class that the
run is evaluated on. The key comes from the environment only, is sent only to the endpoint, and is in no message.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from sar_infer.errors import install
from sar_train.data.files import write_atomic
from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.source import NameRequest, NovelSource, key, kinds

FILE = Path(__file__).parents[1] / "assets" / "novel_request.txt"
AT_ONCE = 100
"""Names per request; long lists tire small models."""
KEY = "SAR_LLM_KEY"
EXAMPLE = "http://localhost:11434/v1"
TEMPERATURE = 0.0
FOLDER = "novel-names"
WORDS = 6
"""Words that a name may have where the training names have no more than four."""
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"(?:[-*•]|\(?\d{1,4}[.)])\s+")
_FORBIDDEN = set('<>{}[]|`*"\\!?:;,#')


def request_text(request: NameRequest, listed: Sequence[str] = ()) -> str:
    """Return the text of a request.

    Args:
        request: training names, how many to list, caption.
        listed: names that were listed before; those that the run is evaluated on are left out of the request.
    """
    repeatable = [name for name in listed if not request.is_evaluated(name)]
    before = "\n\nThese were listed already, list others:\n" + "\n".join(repeatable) if repeatable else ""
    return Template(FILE.read_text(encoding="utf-8")).substitute(
        caption=request.template.replace("{}", "[class]"),
        names="\n".join(name.replace("_", " ") for name in request.trained),
        count=min(request.count, AT_ONCE),
        given=before,
    )


def names_in(answer: str, trained: Sequence[str] = ()) -> list[str]:
    """Return the names of an answer, one a line, in its order and each once, without the training names.

    Bullets and numbers before a name are taken off; thoughts, sentences and other lines that are no name are left out.
    """
    limit = max(WORDS, max((len(name.replace("_", " ").split()) for name in trained), default=0) + 2)
    keys, names = {"", *map(key, trained)}, []
    for line in _THOUGHT.sub("\n", answer).splitlines():
        name = " ".join(_BULLET.sub("", line.strip(), count=1).replace("_", " ").split())
        sentence = name.endswith(".") or len(name.split()) > limit or not _FORBIDDEN.isdisjoint(name)
        if not sentence and name.isprintable() and key(name) not in keys:
            keys.add(key(name))
            names.append(name)
    return names


def ask(url: str, model: str, text: str, seed: int, *, timeout: float = 120.0, retries: int = 3) -> tuple[str, str]:
    """Send a request and return the answer and the model's name by the server.

    The last name is left out where the answer was cut off.

    Args:
        url: base URL of the endpoint, up to ``/v1``.
        model: to be asked.
        text: of the request.
        seed: of the answer.
        timeout: seconds for one attempt.
        retries: further attempts after a rate limit, a server's error or a broken connection.

    Raises:
        ConfigError: address, model or key are wrong, or the client library is missing.
        DataError: the endpoint does not answer, or not with a chat completion.
    """
    try:
        import openai
    except ModuleNotFoundError:
        raise ConfigError(f"--novel llm needs the package openai: {install('llm')}") from None
    secret = os.environ.get(KEY, "").strip()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(f"{KEY} contains blanks or characters that no key has; set it only to the key")
    parts = urlsplit(url)
    endpoint = f"the endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
    base = url.rstrip("/").removesuffix("/chat/completions")
    fixed: dict[str, Any] = {"temperature": TEMPERATURE, "seed": seed}
    with openai.OpenAI(base_url=base, api_key=secret or "none", timeout=timeout, max_retries=retries) as client:
        client.organization = client.project = None  # else they come from OpenAI's environment variables
        try:
            while True:
                try:
                    body = client.chat.completions.with_raw_response.create(
                        model=model, messages=[{"role": "user", "content": text}], **fixed
                    ).text
                    break
                except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                    refused = [name for name in fixed if name in str(error)]
                    if not refused:
                        raise
                    fixed = {name: value for name, value in fixed.items() if name not in refused}
        except openai.APITimeoutError:
            raise DataError(f"{endpoint} did not answer within {timeout:g} s; ask a faster model") from None
        except openai.APIConnectionError:
            raise DataError(f"{endpoint} cannot be reached; check llm-url, and that a server runs there") from None
        except openai.APIStatusError as error:
            status = error.status_code
            if status in (401, 403):
                which = "the key in" if secret else "no key, set one in the environment variable"
                raise ConfigError(f"{endpoint} refused {which} {KEY} (status {status})") from None
            said = error.body.get("message") if isinstance(error.body, dict) else None
            said = " ".join((said if isinstance(said, str) else "").replace(secret or "\0", "…").split())[:120]
            advice = (
                "wait and start again, answers that came are kept"
                if status == 429 or status >= 500
                else (f"check llm-model, and that llm-url is a base URL such as {EXAMPLE}")
            )
            kind = ConfigError if status == 404 else DataError
            raise kind(f"{endpoint} refused the request for {model} (status {status}: {said}); {advice}") from None
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        answer, name = choice["message"]["content"] or "", content.get("model") or model
        if choice.get("finish_reason") == "length":
            answer = answer[: max(answer.rfind("\n"), answer.rfind(","), 0)]
        answer = answer.strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise DataError(
            f"{endpoint} answered with something else than a chat completion; expected llm-url to be the "
            f"base URL of an OpenAI-compatible endpoint, such as {EXAMPLE}"
        ) from None
    if not answer:
        raise DataError(f"model {model} gave an empty answer; try again, or another llm-model")
    return answer, name


@kinds.register("llm")
class LanguageModelSource(NovelSource):
    """``llm``: asked in rounds, each answer kept under ``cache_dir``."""

    form = "llm"
    endless = True

    def check(self) -> None:
        """Raise ConfigError if address or model are missing."""
        super().check()
        url, model = self.options.llm_url, self.options.llm_model
        missing = {"--set llm-url=URL (SAR_LLM_URL)": url, "--set llm-model=NAME (SAR_LLM_MODEL)": model}
        if lacking := " and ".join(name for name, value in missing.items() if not value):
            raise ConfigError(
                f"auxiliary names from a language model need {lacking}: an OpenAI-compatible endpoint, such as "
                f"{EXAMPLE}, and a model that it serves; a key, if it wants one, in {KEY}"
            )
        try:
            parts = urlsplit(url or "")
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(f"llm-url: expected a base URL such as {EXAMPLE}")

    def candidates(self, request: NameRequest) -> Iterator[str]:
        """Ask in rounds until one brings nothing new, at most twice as often as a perfect model needs."""
        url, model, cache = self.options.llm_url or "", self.options.llm_model or "", self.options.cache_dir
        listed: list[str] = []
        for _ in range(2 * math.ceil(request.count / AT_ONCE) + 2):
            text = request_text(request, listed)
            identity = hashlib.sha256(json.dumps([model, TEMPERATURE, request.seed, text]).encode()).hexdigest()[:32]
            path = cache / FOLDER / f"{identity}.json" if cache else None
            try:
                stored = json.loads(path.read_text(encoding="utf-8")) if path else {}
                answer, name = str(stored["answer"]), str(stored["model"])
            except (OSError, ValueError, KeyError, TypeError):  # none, or a damaged one
                stored = None
                answer, name = ask(url, model, text, request.seed)
            fresh = names_in(answer, [*request.trained, *listed])
            if not fresh and not listed:
                said = " ".join(answer.split())[:60]
                raise DataError(f"model {name} listed no new name but said: {said!r}; try another llm-model")
            if path and not stored:
                content = {
                    "model": name,
                    "asked_for": model,
                    "temperature": TEMPERATURE,
                    "seed": request.seed,
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "request": text,
                    "answer": answer,
                }
                write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            self.model = name
            if not fresh:
                return
            listed += fresh
            yield from fresh
