"""Data: a dataset (photos with their classes in splits), its features under a backbone, and a task made of them.

`opening` opens what a user names: photos, whose layout a file in `readers` knows, or features. A task is which classes
(`protocol`) and which photos (`task`) are learned from and evaluated on. `check` reports what is missing or wrong
without raising. Only `clip` (the backbone), `config` and `errors` may come in, and from `sar_infer` the manifest,
images and storage.
"""
