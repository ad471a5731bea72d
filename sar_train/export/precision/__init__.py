"""Smaller graphs of a bundle's encoders, each kept only if it passes its gate; see ``docs/precision.md``."""
