"""The identity of the code that made a result: a version for people, and a digest of the sources that count."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

APART = ("cli", "export", "report")
"""Parts of ``sar_train`` that no accuracy depends on."""
SHARED = ("bundle", "class_model", "classify", "images", "measures.py", "storage", "text")
"""Parts of ``sar_infer`` that training uses."""


@cache
def identity() -> dict[str, str]:
    """Return ``version`` of the package and ``digest`` (16 hex digits) of its sources and assets."""
    try:
        release = version("sar-clip")
    except PackageNotFoundError:
        release = "source"
    trainer, shared = (Path(str(find_spec(name).origin)).parent for name in ("sar_train", "sar_infer"))  # type: ignore[union-attr]
    return {"version": release, "digest": digest(trainer, shared)}


@cache
def digest(trainer: Path, shared: Path) -> str:
    """Return SHA-256 over relative path and content of every file that counts, cut to 16 hex digits.

    Args:
        trainer: the folder of ``sar_train``.
        shared: the folder of ``sar_infer``.
    """
    sha256 = hashlib.sha256()
    for root in (trainer, shared):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            parts = path.relative_to(root).parts
            if "__pycache__" not in parts and (parts[0] in SHARED if root is shared else parts[0] not in APART):
                sha256.update("/".join(parts).encode() + b"\0")
                sha256.update(hashlib.sha256(path.read_bytes()).digest())
    return sha256.hexdigest()[:16]
