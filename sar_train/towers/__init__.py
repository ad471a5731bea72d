"""The frozen towers of a CLIP model; they apply `Prompts`, and nothing forks or patches the backbone."""
