"""The inputs of a bulk run: images listed as files, tar shards, and row groups of Parquet files."""
