"""Commands of training: one file each, with shared options, one-line errors and progress in `common`.

Heavy modules are imported when a command needs them, so that ``--help`` is quick. Every package may be imported here.
"""
