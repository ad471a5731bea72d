"""Bulk runs: many images in, one row each out; ``run.run`` starts a run.

A run lists its inputs once, as chunks, and keeps that list next to its output. A worker reads one chunk at a time (some
images, a tar, or a row group of a Parquet file), and its rows become one part, which appears whole or not at all: a run
that is killed continues where it was, and every input has exactly one row.
"""
