"""Novel names, which SAR regularises beside the training classes; there are no images of them.

`gather.novel_names` gathers them from a source, which `source.open_novel_source` finds by the user's text after
``--novel``. A source is a class that a file here registers: `lists` of names, `wordnet`, a `chat_model`. It imports
only `data` and the packages below it; nothing here needs a backbone.
"""
