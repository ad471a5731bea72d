"""The settings of a run, checked all at once."""
