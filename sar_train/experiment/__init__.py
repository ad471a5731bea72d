"""Experiments: plan the runs of a protocol or a sweep file, execute each in a process of its own, keep one file each.

A `Job` names its result by everything that the result depends on. Everything of training and evaluation may come in;
reports only read the files.
"""
