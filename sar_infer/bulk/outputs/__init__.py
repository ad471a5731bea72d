"""The output of a bulk run: parts that appear whole or not at all, and one file or folder made of them."""
