"""The commands of the run time: a module each, and a package for ``sar-bank``; ``options`` holds what they share.

Commands parse, call the packages below and print. They import heavy modules only after parsing, so ``--help`` is quick.
"""
