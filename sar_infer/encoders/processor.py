"""The kind of this machine's processor, as far as INT8 graphs depend on it.

An x86-64 processor without VNNI adds pairs of byte products in 16 bits, which saturate, so that an INT8 graph gives
other numbers there. With VNNI, and on ARM, sums are exact; without dot products ARM is only slow.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

X86_VNNI, X86 = "x86-64 with VNNI", "x86-64 without VNNI"
ARM_DOT, ARM = "ARM64 with dot products", "ARM64 without dot products"
FAST_AT_INT8 = (X86_VNNI, ARM_DOT)
_FLAGS = {
    "x86_64": ("vnni", X86_VNNI, X86),
    "amd64": ("vnni", X86_VNNI, X86),
    "aarch64": ("asimddp", ARM_DOT, ARM),
    "arm64": ("asimddp", ARM_DOT, ARM),
}
"""By machine: what Linux calls the instructions, and the kinds with and without them."""
_CPU_INFO = Path("/proc/cpuinfo")


def has_bfloat16() -> bool:
    """Return whether an x86-64 processor multiplies bfloat16 by instructions of its own, as far as Linux says."""
    try:
        flags = _CPU_INFO.read_text("ascii", "replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def processor() -> str | None:
    """Return one of the kinds above; None if the system, which is not Linux or an ARM Mac, does not say."""
    machine = platform.machine().lower()
    if sys.platform == "darwin" and machine == "arm64":
        return ARM_DOT
    try:
        flag, having, lacking = _FLAGS[machine]
        return having if flag in _CPU_INFO.read_text("ascii", "replace") else lacking
    except (KeyError, OSError):
        return None
