"""Images: the formats that are read, limits on what decoding may cost, and the way to the encoder's input.

The list of formats and suffixes is in `formats`. Only errors, results and the manifest's `Preprocess` may come in.
"""
