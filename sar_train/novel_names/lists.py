"""Sources that are a list of names: a file, the classes of another dataset, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from sar_train.data.opening import IMAGENET, read_class_names
from sar_train.errors import ConfigError, DataError
from sar_train.novel_names.source import NameRequest, NovelSource, kinds


@kinds.register("none")
class Nothing(NovelSource):
    """``none``: SAR only on the names of the training classes."""

    form = "none"

    def candidates(self, request: NameRequest) -> Iterable[str]:  # noqa: ARG002
        """Return no names."""
        return ()


@kinds.register("file")
class File(NovelSource):
    """Any path, or ``file:PATH``, one name a line; blank lines and lines that begin with ``#`` are passed over."""

    form = "FILE"

    def check(self) -> None:
        """Raise ConfigError if there is no such file."""
        if not self.argument or not Path(self.argument).is_file():
            raise ConfigError(f"auxiliary names: {self.name}: no such file; expected {self.form}")

    def candidates(self, request: NameRequest) -> Iterable[str]:  # noqa: ARG002
        """Return the names in the file's order.

        Raises:
            DataError: the file cannot be read, is not text, or holds no name.
        """
        path = Path(self.argument or "")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise DataError(f"auxiliary names: {path} cannot be read ({reason}); expected one name a line") from None
        if "\0" in text:
            raise DataError(f"auxiliary names: {path} is a binary file; expected one name a line")
        lines = (line.strip() for line in text.splitlines())
        names = [line for line in lines if line and not line.startswith("#")]
        if not names:
            raise DataError(f"auxiliary names: {path} contains no name; expected a list, one name a line")
        return names


@kinds.register("dataset")
class ClassesOfDataset(NovelSource):
    """``dataset:NAME``: a dataset below ``--data-root``, ``imagenet``, ``demo``, a folder, a list or a feature file."""

    form = "dataset:NAME"

    def check(self) -> None:
        """Raise ConfigError if there is no name."""
        if not self.argument:
            raise ConfigError(f"auxiliary names: expected {self.form}, such as dataset:{IMAGENET}, got {self.name}")

    def candidates(self, request: NameRequest) -> Iterable[str]:
        """Return the names in a random order, since a dataset's own order puts similar classes together."""
        options = self.options
        names = list(read_class_names(self.argument or "", options.data_root, options.cache_dir))
        random.Random(request.seed).shuffle(names)
        return names
