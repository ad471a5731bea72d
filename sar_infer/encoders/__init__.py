"""Encoders: onnxruntime sessions, the image and the name encoder, the choice of graphs, the self-test, a cache.

Images, bundles and text may come in; classes and ranking are above.
"""
