"""Novel names, which SAR regularises beside the training classes; there are no images of them.

`novel_names` gathers them from a source, which `open_novel_source` finds by the user's text after ``--novel``. A source
is a class that a file here registers: `lists` of names, `wordnet`, a `chat_model`. Only `data` and the rooms below it
may come in; nothing here needs a backbone.
"""

from sar_train.novel_names.gather import COUNT, NovelNames, novel_names
from sar_train.novel_names.source import NameRequest, NovelSource, SourceOptions, forms, kinds, open_novel_source

__all__ = [
    "COUNT",
    "NameRequest",
    "NovelNames",
    "NovelSource",
    "SourceOptions",
    "forms",
    "kinds",
    "novel_names",
    "open_novel_source",
]
