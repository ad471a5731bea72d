"""Bundles: the manifest, the checks before anything of a folder is used, opening, writing and describing one.

What `sar_train` writes and `sar_infer` reads is defined here, once. Bank, text and storage may come in.
"""
