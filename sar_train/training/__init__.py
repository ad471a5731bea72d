"""One run, from settings to record: what it learns from, the loop, a step, its state and what it leaves on disk."""
