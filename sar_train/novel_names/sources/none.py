"""No novel names: SAR on the names of the training classes alone."""

from __future__ import annotations

from collections.abc import Iterable

from sar_train.novel_names.source import NovelSource, Wanted, kinds


@kinds.register("none")
class Nothing(NovelSource):
    """``none``."""

    form = "none"

    def candidates(self, wanted: Wanted) -> Iterable[str]:  # noqa: ARG002
        """Return no names."""
        return ()
