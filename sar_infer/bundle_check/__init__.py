"""Encoders beside a reference: what a bundle computes now, how far that is from what it should, and whether too far.

The reference is what the manifest says, another graph of the bundle, or torch while a bundle is made. ``comparison``
compares rows, ``finding`` judges a figure; ``verify_bundle`` measures a whole bundle again.
"""

from __future__ import annotations

from sar_infer.bundle_check.bundle import moved, verify_bundle
from sar_infer.bundle_check.finding import Check

__all__ = ["Check", "moved", "verify_bundle"]
