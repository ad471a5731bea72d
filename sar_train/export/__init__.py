"""Trained prompts in, a bundle out: graphs, bank and manifest, compared with torch before the folder gets its name."""
