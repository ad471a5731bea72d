"""Data: labelled images and features that were made in advance, opened by one function each.

`open_images` finds the images that a user names, `source.open_source` pairs them with a backbone. `check` reports what
is missing or wrong without raising. Only `clip` (the backbone), `config` and `errors` may come in, and from `sar_infer`
the manifest, images and storage.
"""
