"""Processes that work for this one: ``pool.WorkerPool`` of this machine, and the way to a Ray cluster.

Bulk runs and experiments use them. A worker is started fresh, talks over a pipe of its own, and ends with its parent.
Nothing here knows what a task is about.
"""
