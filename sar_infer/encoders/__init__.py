"""Encoders: onnxruntime sessions, the choice of graphs, and the test that they compute as at export."""
