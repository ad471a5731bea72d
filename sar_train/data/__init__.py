"""Data: a dataset (photos with their classes in splits), its features under a backbone, and a task made of them.

`opening` opens what a user names: photos, whose layout a file in `readers` recognises, or features. A task is which
classes (`protocol`) and which photos (`task`) are learned from and evaluated on. It imports only `clip` (the backbone),
`config` and `errors`, and from `sar_infer` the manifest, images and storage.
"""
