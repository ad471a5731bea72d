"""Layouts on disk, one file each; `base` says what a reader is."""
