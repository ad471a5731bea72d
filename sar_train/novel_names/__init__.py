"""Novel (auxiliary) names, which SAR regularises together with the training classes; they have no images.

`gather.novel_names` gathers them from a source, which `source.open_novel_source` finds by the user's text after
``--novel``. A source is a class that a file here registers: `lists` of names, `wordnet`, a `chat_model`. It imports
only `data` and the packages below it; nothing here needs a backbone.
"""
