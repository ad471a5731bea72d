"""Processes that work for this one: a worker that is asked again and again, one for each task, and a Ray cluster.

A worker is started fresh, talks over a pipe of its own, and ends with its parent. Nothing here knows what a task is.
"""
