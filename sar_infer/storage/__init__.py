"""Storage: atomic and locked files, safetensors, class names with tensors, strict JSON.

Nothing here knows what the files are for; only errors may come in.
"""
