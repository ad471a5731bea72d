"""The measures of a prompt: accuracy, a linear probe, relations between names, confidence."""
