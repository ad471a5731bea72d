"""The class names of another dataset."""

from __future__ import annotations

import random
from collections.abc import Iterable

from sar_train.data.class_names import IMAGENET, read_classes
from sar_train.errors import ConfigError
from sar_train.novel_names.source import NovelSource, Wanted, kinds


@kinds.register("dataset")
class Dataset(NovelSource):
    """``dataset:NAME``: a dataset below ``--data-root``, ``imagenet``, ``demo``, a folder, a list or a feature file."""

    form = "dataset:NAME"

    def check(self) -> None:
        """Raise ConfigError if there is no name."""
        if not self.argument:
            raise ConfigError(f"novel names: expected {self.form}, such as dataset:{IMAGENET}, got {self.name}")

    def candidates(self, wanted: Wanted) -> Iterable[str]:
        """Return the names in a random order, since a dataset's own order puts similar classes together."""
        options = self.options
        names = list(read_classes(self.argument or "", options.data_root, options.cache_dir).class_names)
        random.Random(wanted.seed).shuffle(names)
        return names
