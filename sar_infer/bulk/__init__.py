"""Many images in, one row each out: pieces of the inputs are classified and committed one by one.

A piece is a tar shard, a row group of a Parquet file, or some thousand listed images. Its answers are one part file
that appears whole or not at all, so a run that is killed goes on where it was and every input has exactly one row.
"""
