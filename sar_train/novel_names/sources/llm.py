"""A language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.clean import names_in
from sar_train.novel_names.language_model import AT_ONCE, EXAMPLE, AnswerCache, Endpoint, request
from sar_train.novel_names.source import NovelSource, Wanted, kinds


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

    def candidates(self, wanted: Wanted) -> Iterator[str]:
        """Ask in rounds until one brings nothing new, at most twice as often as a perfect model needs."""
        answers, listed = AnswerCache(self.options.cache_dir), list[str]()
        for _ in range(2 * math.ceil(wanted.count / AT_ONCE) + 2):
            text = request(wanted, listed)
            answer = answers.get(self.endpoint.model, wanted.seed, text)
            known = answer is not None
            answer = answer or self.endpoint.ask(text, wanted.seed)
            fresh = names_in(answer.text, [*wanted.trained, *listed])
            if not fresh and not listed:
                raise DataError(
                    f"model {answer.model} listed no new name but said: {' '.join(answer.text.split())[:60]!r}; try "
                    "another --llm-model, or paste the request into a chat (sar-experiment novel-names --show-request)"
                )
            if not known:
                answers.put(self.endpoint.model, wanted.seed, text, answer)
            self.model = answer.model
            if not fresh:
                return
            listed += fresh
            yield from fresh
