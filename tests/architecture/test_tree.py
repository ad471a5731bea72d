"""What may lie in the repository: nothing of the machine it was written on, nothing huge, nothing that runs code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_TREE = 80 * 10**6
LARGEST_FILE = 40 * 2**20
LARGEST_TEXT = 16 * 2**20
# Written in two pieces, so that this file does not find itself.
MACHINE = re.compile(r"(?<![\w.~$})/-])/(?:wor" + r"k|op" + r"t|roo" + r"t)/")
REGISTRIES = re.compile("|".join(["pypi" + r"\.org", "pythonhosted" + r"\.org", "download" + r"\.pytorch\.org"]))
PICKLES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".tar"}


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Files that are in git or would be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def lines(path: Path) -> list[str]:
    """Lines of a text file; none of a binary one."""
    content = path.read_bytes()
    return [] if b"\0" in content[:8192] else content.decode("utf-8", "replace").splitlines()


@pytest.mark.parametrize("pattern", [MACHINE, REGISTRIES], ids=["machine paths", "registry hosts"])
def test_nothing_of_this_machine_is_written_down(files: list[Path], pattern: re.Pattern[str]) -> None:
    violations = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(lines(path), 1)
        if pattern.search(line)
    ]
    assert violations == []


def test_size(files: list[Path]) -> None:
    assert [path for path in files if path.stat().st_size > LARGEST_FILE] == []
    binary = [path for path in files if b"\0" in path.read_bytes()[:8192]]
    assert sum(path.stat().st_size for path in binary) < LARGEST_TREE
    assert sum(path.stat().st_size for path in {*files} - {*binary}) < LARGEST_TEXT


def test_no_pickles_and_no_photos_but_those_of_the_examples(files: list[Path]) -> None:
    photos = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    assets = ROOT / "docs" / "assets"
    allowed = (
        ROOT / "docs" / "reports",
        assets / "ui.webp",
        assets / "one_file.webp",
        ROOT / "examples" / "clothes",
        ROOT / "sar_infer" / "encoders" / "photos",  # CC0
    )
    violations = [path for path in files if path.suffix.lower() in PICKLES | photos]
    assert [path for path in violations if not any(path.is_relative_to(folder) for folder in allowed)] == []
