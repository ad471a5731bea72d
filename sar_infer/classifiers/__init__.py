"""Classifiers beside the text branch: class statistics, with photos of classes."""
