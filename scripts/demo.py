"""The whole loop, offline: learn a prompt, export a bundle, classify photos with names nobody trained on.

    python scripts/demo.py [FOLDER]

FOLDER (default ``runs/demo``) takes the run and the bundle; a finished run in it is used again. The photos come with
scikit-image. Each step is one command, printed before it runs, so that it can be repeated by hand.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

NEW_NAMES = ("tabby kitten", "cup of coffee", "space rocket", "bicycle", "golden retriever")


def photos() -> list[str]:
    """Write images of a cat, a cup of coffee and a rocket."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        sys.exit("the demo takes its photos from scikit-image: pip install scikit-image")
    folder = Path(package.origin).parent / "data"
    return [str(folder / name) for name in ("chelsea.png", "coffee.png", "rocket.jpg")]


def step(what: str, *command: str) -> None:
    """Print a title, run a command, and stop if it fails."""
    print(f"\n# {what}\n$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    """Train, export, classify."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    run, bundle, names = folder / "run", folder / "bundle", folder / "new.txt"
    folder.mkdir(parents=True, exist_ok=True)
    names.write_text("\n".join(NEW_NAMES) + "\n")
    if not (run / "record.json").is_file():
        step(
            "learn a prompt with SAR from Caltech101's features",
            "sar-train",
            "demo",
            "--epochs",
            "40",
            "--out",
            str(run),
        )
    if not (bundle / "manifest.json").is_file():
        step("export it: from here on without PyTorch", "sar-export", str(run), "--out", str(bundle))
    step("classify photos among ImageNet's 1,000 names (the shipped bundle)", "sar-classify", *photos(), "--top-k", "3")
    step("add names that nobody trained on", "sar-classify", *photos(), "--classes", str(names), "--top-k", "3")
    step(
        "the prompt just learned, new names only",
        "sar-classify",
        *photos(),
        "--bundle",
        str(bundle),
        "--classes",
        str(names),
        "--only",
        "--top-k",
        "3",
    )


if __name__ == "__main__":
    main()
