"""The frozen CLIP: backbone, weights, tokens, and the two towers, which apply `Prompts`.

Nothing forks or patches the backbone; one module touches open_clip.
"""
