"""Bundles: the manifest, the checks on a folder, opening, writing, freezing and describing one, its model card.

This is the contract: what `sar_train` writes and `sar_infer` reads is defined here, once. Only the rooms classifiers,
bank, text and storage may come in.
"""
