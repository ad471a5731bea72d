"""Open Inference Protocol v2, behind ``routes/v2``."""
