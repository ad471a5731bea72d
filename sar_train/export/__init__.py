"""Trained prompts in, a bundle out: graphs, bank and manifest, compared with torch before the folder gets its name.

Bundles can be checked again later (`recheck`), made smaller (`precision`) or turned into Triton repositories
(`triton`).
"""
