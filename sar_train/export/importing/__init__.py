"""Published ONNX towers in, a bundle out, without torch; see ``docs/encoders.md``."""
