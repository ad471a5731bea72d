"""Novel names: what SAR regularises beside the training classes; there are no images of them.

`novel_names` gathers them from a source, which `open_source` finds by what the user writes after ``--novel``. A source
is one file in ``sar_train/novel_names/sources/`` that registers a class.
"""

from sar_train.novel_names.gather import COUNT, NovelNames, novel_names, room_in
from sar_train.novel_names.source import NovelSource, Options, Wanted, forms, kinds, open_source

__all__ = [
    "COUNT",
    "NovelNames",
    "NovelSource",
    "Options",
    "Wanted",
    "forms",
    "kinds",
    "novel_names",
    "open_source",
    "room_in",
]
