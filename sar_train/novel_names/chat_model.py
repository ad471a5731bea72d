"""A chat model as a source: the request, the OpenAI-compatible endpoint, and the answers that are kept.

The text of the request is ``sar_train/assets/novel_request.txt``. It holds the names of the training classes and says
by a caption what they are about; it names neither the dataset, which a model may know by heart, nor any class that the
run is evaluated on. The key comes from the environment alone, is sent only to the endpoint, and is in no message.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sar_train.data.files import write_atomic
from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.clean import names_in
from sar_train.novel_names.source import NameRequest, NovelSource, kinds

if TYPE_CHECKING:
    import openai


FILE = Path(__file__).parents[1] / "assets" / "novel_request.txt"
AT_ONCE = 100
"""Names per request; long lists tire small models."""
KEY = "SAR_LLM_KEY"
EXAMPLE = "http://localhost:11434/v1"
TEMPERATURE = 0.0
_NO_KEY = "none"
"""The client requires a key; servers without keys ignore it."""
FOLDER = "novel-names"


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


@dataclass(frozen=True)
class Answer:
    """The answer of a model.

    Attributes:
        text: as it came; the last name is left out where the answer was cut off.
        model: its name by the server.
    """

    text: str
    model: str


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint and a model there.

    Attributes:
        url: base URL, up to ``/v1``.
        model: to be asked.
        timeout: seconds for one attempt.
        retries: further attempts after a rate limit, a server's error or a broken connection; a Retry-After of up to
            two minutes is kept.
    """

    url: str
    model: str
    timeout: float = 120.0
    retries: int = 3

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.url)
            usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(f"--llm-url: expected a base URL such as {EXAMPLE}")

    @property
    def address(self) -> str:
        """Return the URL for messages, without user name and password."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"

    def ask(self, text: str, seed: int) -> Answer:
        """Send a request and wait for the answer.

        Raises:
            ConfigError: address, model or key are wrong, or the client library is missing.
            DataError: the endpoint does not answer, or not with a chat completion.
        """
        try:
            import openai
        except ModuleNotFoundError:
            raise ConfigError("--novel llm needs the package openai: pip install 'sar-clip[llm]'") from None
        with openai.OpenAI(
            base_url=self.url.rstrip("/").removesuffix("/chat/completions"),
            api_key=_key() or _NO_KEY,
            timeout=self.timeout,
            max_retries=self.retries,
        ) as client:
            client.organization = client.project = None  # else they come from OpenAI's environment variables
            try:
                return self._read(self._create(client, text, {"temperature": TEMPERATURE, "seed": seed}))
            except openai.OpenAIError as error:
                raise self._problem(error) from None

    def _create(self, client: openai.OpenAI, text: str, fixed: dict[str, Any]) -> str:
        """Send the request and return the body of the response; settings that the model refuses are left out."""
        import openai

        try:
            response = client.chat.completions.with_raw_response.create(
                model=self.model, messages=[{"role": "user", "content": text}], **fixed
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            refused = [name for name in fixed if name in str(error)]
            if not refused:
                raise
            return self._create(client, text, {k: v for k, v in fixed.items() if k not in refused})
        return response.text

    def _read(self, body: str) -> Answer:
        try:
            content = json.loads(body)
            choice = content["choices"][0]
            text, model = choice["message"]["content"], content.get("model")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise DataError(
                f"{self.address} answered with something else than a chat completion; expected --llm-url to be the "
                f"base URL of an OpenAI-compatible endpoint, such as {EXAMPLE}"
            ) from None
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"model {self.model} gave an empty answer; try again, or another --llm-model")
        if choice.get("finish_reason") == "length":
            text = text[: max(text.rfind("\n"), text.rfind(","), 0)]
        return Answer(text, model if isinstance(model, str) and model else self.model)

    def _problem(self, error: openai.OpenAIError) -> ConfigError | DataError:
        """Return an error of the client as one line that says what to do."""
        import openai

        where = f"the endpoint {self.address}"
        if isinstance(error, openai.APITimeoutError):
            return DataError(f"{where} did not answer within {self.timeout:g} s, {self._tries}; ask a faster model")
        if isinstance(error, openai.APIConnectionError):
            return DataError(f"{where} cannot be reached; check --llm-url, and that a server runs there")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            key = "the key in" if _key() else "no key, set one in the environment variable"
            return ConfigError(f"{where} refused {key} {KEY} (status {error.status_code})")
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{where} does not know the model {self.model}, or is no endpoint (status 404); check --llm-model, and "
                f"that --llm-url is a base URL such as {EXAMPLE}"
            )
        if isinstance(error, openai.RateLimitError):
            after = error.response.headers.get("retry-after", "")
            wait = f", Retry-After: {after[:40]}" if after else ""
            return DataError(
                f"{where} refused for too many requests or a spent quota (status 429{wait}), {self._tries}; wait and "
                "start again, answers that came are kept"
            )
        if isinstance(error, openai.InternalServerError):
            return DataError(f"{where} failed (status {error.status_code}), {self._tries}; look at the server, or wait")
        status = f" (status {error.status_code}{_said(error)})" if isinstance(error, openai.APIStatusError) else ""
        return DataError(f"{where} refused the request{status}; check --llm-model and --llm-url")

    @property
    def _tries(self) -> str:
        return f"in up to {self.retries + 1} attempts"


def _key() -> str:
    """Return the key, empty where there is none."""
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or any(character.isspace() or not character.isprintable() for character in key):
        raise ConfigError(f"{KEY} holds blanks or characters that no key has; set it to the key alone")
    return key


def _said(error: openai.APIStatusError) -> str:
    """Return the server's own message, shortened, without the key."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    key = _key()
    text = message if isinstance(message, str) else ""
    text = " ".join((text.replace(key, "…") if key else text).split())[:120]
    return f": {text}" if text else ""


@kinds.register("llm")
class LanguageModelSource(NovelSource):
    """``llm``: asked in rounds, each answer kept under ``cache_dir``."""

    form = "llm"
    endless = True

    def check(self) -> None:
        """Raise ConfigError if address or model are missing."""
        super().check()
        url, model = self.options.llm_url, self.options.llm_model
        missing = {"--llm-url (SAR_LLM_URL)": url, "--llm-model (SAR_LLM_MODEL)": model}
        lacking = " and ".join(name for name, value in missing.items() if not value)
        if not url or not model:
            raise ConfigError(
                f"novel names from a language model need {lacking}: an OpenAI-compatible endpoint, such as {EXAMPLE}, "
                "and a model that it serves; a key, if it wants one, in SAR_LLM_KEY"
            )
        self.endpoint = Endpoint(url, model)

    def candidates(self, request: NameRequest) -> Iterator[str]:
        """Ask in rounds until one brings nothing new, at most twice as often as a perfect model needs."""
        listed: list[str] = []
        for _ in range(2 * math.ceil(request.count / AT_ONCE) + 2):
            text = request_text(request, listed)
            path = self._answer_path(text, request.seed)
            stored = _stored_answer(path)
            answer = stored or self.endpoint.ask(text, request.seed)
            fresh = names_in(answer.text, [*request.trained, *listed])
            if not fresh and not listed:
                raise DataError(
                    f"model {answer.model} listed no new name but said: {' '.join(answer.text.split())[:60]!r}; try "
                    "another --llm-model"
                )
            if path and not stored:
                content = {
                    "model": answer.model,
                    "asked_for": self.endpoint.model,
                    "temperature": TEMPERATURE,
                    "seed": request.seed,
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "request": text,
                    "answer": answer.text,
                }
                write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            self.model = answer.model
            if not fresh:
                return
            listed += fresh
            yield from fresh

    def _answer_path(self, text: str, seed: int) -> Path | None:
        """Return where the answer to a request is kept, by model, seed and whole request; None without a cache."""
        identity = json.dumps([self.endpoint.model, TEMPERATURE, seed, text]).encode()
        cache = self.options.cache_dir
        return cache / FOLDER / f"{hashlib.sha256(identity).hexdigest()[:32]}.json" if cache else None


def _stored_answer(path: Path | None) -> Answer | None:
    """Return an answer that was kept; None where there is none, or its file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path else {}
        text, model = content["answer"], content["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Answer(text, model) if isinstance(text, str) and isinstance(model, str) else None
