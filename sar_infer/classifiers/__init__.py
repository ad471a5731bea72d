"""Classifiers beside the text branch: class statistics with photos of classes, and the head that a method trained."""
