"""A file with one name a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.source import NovelSource, Wanted, kinds


@kinds.register("file")
class File(NovelSource):
    """Any path, or ``file:PATH``; blank lines and lines that begin with ``#`` are passed over."""

    form = "FILE"

    def check(self) -> None:
        """Raise ConfigError if there is no such file."""
        if not self.argument or not Path(self.argument).is_file():
            raise ConfigError(f"novel names: {self.name}: no such file; expected one with one name a line")

    def candidates(self, wanted: Wanted) -> Iterable[str]:  # noqa: ARG002
        """Return the names in the file's order."""
        lines = (line.strip() for line in read_text(Path(self.argument or "")).splitlines())
        names = [line for line in lines if line and not line.startswith("#")]
        if not names:
            raise DataError(f"novel names: {self.argument} holds no name; expected one per line")
        return names


def read_text(path: Path) -> str:
    """Read the text of a file.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"novel names: {path} cannot be read ({reason}); expected one name a line") from None
    if "\0" in text:
        raise DataError(f"novel names: {path} is a binary file; expected one name a line")
    return text
