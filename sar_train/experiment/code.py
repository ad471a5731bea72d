"""The identity of the code that made a result: a version for people, and a digest of the sources that count."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

APART = ("cli", "export", "report", "__pycache__")
"""Parts of ``sar_train`` that no accuracy depends on."""
SHARED = (
    "bundle/manifest.py",
    "classifiers/gaussian.py",
    "classifiers/left_out.py",
    "classifiers/scores.py",
    "classifiers/statistics.py",
    "classify/calibration.py",
    "images/formats.py",
    "images/jpeg.py",
    "images/load.py",
    "images/preprocess.py",
    "measures.py",
    "storage/files.py",
    "storage/strict_json.py",
    "text/__init__.py",
    "text/tokenizer.py",
)
"""Parts of ``sar_infer`` that training uses."""


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
    files = [p for p in trainer.rglob("*") if p.is_file() and not set(p.relative_to(trainer).parts) & {*APART}]
    sha256 = hashlib.sha256()
    for root, paths in ((trainer, files), (shared, [shared / name for name in SHARED])):
        for path in sorted(paths):
            sha256.update(path.relative_to(root).as_posix().encode() + b"\0")
            sha256.update(hashlib.sha256(path.read_bytes()).digest())
    return sha256.hexdigest()[:16]
