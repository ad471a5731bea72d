"""The prompt-tuning methods, one file each; every file in this folder is found and registered."""
