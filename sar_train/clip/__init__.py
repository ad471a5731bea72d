"""The frozen CLIP: backbone, weights, tokens, and the two towers, which apply `Prompts`.

Nothing forks or patches the backbone; one module touches open_clip.
"""

TIMM = "timm/"
"""Before the name of an image encoder of timm, which has no text tower."""
