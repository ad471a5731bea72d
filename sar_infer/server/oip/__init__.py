"""Open Inference Protocol v2: its messages, and the model as it describes it; ``routes/v2`` has the routes."""
