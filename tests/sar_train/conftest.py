"""Exports of equal modules share one traced graph."""

from support.traces import traced_once

__all__ = ["traced_once"]
