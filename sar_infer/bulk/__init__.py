"""Bulk runs: many images in, one row each out; ``run`` is where a run starts.

A piece of the inputs is a tar shard, a row group of a Parquet file, or some thousand listed images. Its answers are one
part file that appears whole or not at all, so a killed run continues where it was and every input has exactly one row.
This room may use the classifier and every room below it; the command ``sar-classify --out`` is its only caller.
"""
