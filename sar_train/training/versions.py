"""The versions of what a result or a bundle was made with; imports no torch."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("sar-clip", "torch", "open_clip_torch", "timm", "numpy", "safetensors")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, by default of those that a result may depend on."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "source"
    return installed
