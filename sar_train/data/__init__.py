"""Data: a dataset (photos with their classes in splits), and its features under a backbone.

`open_dataset` opens the photos that a user names, whose layout a file in `readers` knows; `open_features` pairs them
with a backbone, or opens a feature file. `check` reports what is missing or wrong without raising. Only `clip` (the
backbone), `config` and `errors` may come in, and from `sar_infer` the manifest, images and storage.
"""
