"""A chat model's answer that the user has saved, as it came."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.clean import names_in
from sar_train.novel_names.source import NovelSource, Wanted, kinds
from sar_train.novel_names.sources.file import read_text


@kinds.register("answer")
class SavedAnswer(NovelSource):
    """``answer:FILE``: numbering, quotes, JSON, explanations and chatter are taken off."""

    form = "answer:FILE"

    def check(self) -> None:
        """Raise ConfigError if there is no such file."""
        if not self.argument or not Path(self.argument).is_file():
            raise ConfigError(f"novel names: {self.name}: no such file; expected answer:FILE, a model's saved answer")

    def candidates(self, wanted: Wanted) -> Iterable[str]:
        """Return the names that the answer lists."""
        names = names_in(read_text(Path(self.argument or "")), wanted.trained)
        if not names:
            raise DataError(f"novel names: there is no name in {self.argument}; expected a list, one name a line")
        return names
