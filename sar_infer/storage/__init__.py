"""Storage: atomic and locked files, memory-mapped safetensors, class names with tensors, strict JSON.

Nothing here knows what the files are for; only errors may come in.
"""

READER_VERSION = 3
"""The newest format that this code reads; bundles and banks state the oldest reader that understands them."""
