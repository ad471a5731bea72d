"""Images: how a file becomes upright RGB within limits, and that the encoder's input.

Formats and limits are in `load`; what decoding may cost is in `jpeg` and `price`.
"""
