"""Answers: the classes of a call, their ranking, and the decision whether the best of them is to be believed."""
