from support.forked import forked_workers

__all__ = ["forked_workers"]
