"""Bundles: the manifest, the checks on a folder, opening, writing, freezing and describing one, its model card.

This is the contract: what `sar_train` writes and `sar_infer` reads is defined here, once. It imports
only class_model, bank, text and storage.
"""
