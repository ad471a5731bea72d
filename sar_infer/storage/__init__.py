"""Files: written whole or not at all, locked, sealed by digests; safetensors that are mapped, and strict JSON.

Nothing here knows what the files mean.
"""

READER_VERSION = 2
"""Newest format that this code reads; bundles and banks state the oldest one that understands them, ``min_reader``."""
