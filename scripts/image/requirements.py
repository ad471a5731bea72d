"""Print what the container image installs beside the project's wheel, read from that wheel's own metadata.

The metadata asks for ``onnxruntime-gpu`` where it exists, since that wheel serves CPUs as well; an image for CPUs takes
the plain ``onnxruntime`` of the same range, a quarter of the size. The image is therefore filled from this list and the
project's wheel is installed without its dependencies.
"""

from __future__ import annotations

import argparse
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement

GPU, PLAIN = "onnxruntime-gpu", "onnxruntime"
EXTRAS = {"cpu": ("serve",), "cuda": ("serve", "cuda")}


def main() -> int:
    """Print one requirement a line for the interpreter that runs this."""
    parser = argparse.ArgumentParser(description="Requirements of the container image, from the project's wheel.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--device", choices=sorted(EXTRAS), default="cpu")
    arguments = parser.parse_args()
    print("\n".join(select(requirements(arguments.wheel), arguments.device)))
    return 0


def requirements(wheel: Path) -> list[str]:
    """The ``Requires-Dist`` lines of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])


def select(lines: list[str], device: str, platform: dict[str, str] | None = None) -> list[str]:
    """Requirements of the base install and of the device's extras, sorted, without their markers.

    Args:
        lines: ``Requires-Dist`` lines.
        device: ``cpu`` or ``cuda``.
        platform: Marker variables in place of this interpreter's own, such as ``platform_machine``.

    Raises:
        SystemExit: CUDA was asked for on a platform that has no wheel for it.
    """
    chosen = set()
    for requirement in map(Requirement, lines):
        environments = [{**(platform or {}), "extra": extra} for extra in ("", *EXTRAS[device])]
        if requirement.marker and not any(requirement.marker.evaluate(e) for e in environments):
            continue
        requirement.marker = None
        if device == "cpu" and requirement.name == GPU:
            requirement.name, requirement.extras = PLAIN, set()
        chosen.add(str(requirement))
    if device == "cuda" and not any(Requirement(line).name == GPU for line in chosen):
        raise SystemExit(f"DEVICE=cuda: {GPU} has no wheel for this platform")
    return sorted(chosen)


if __name__ == "__main__":
    raise SystemExit(main())
