"""What a prompt is measured by: accuracies, a linear probe, relations between names, confidence."""
