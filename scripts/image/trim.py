"""Remove from a container image under construction what a server does not use, then compile the rest.

``system /`` is for the operating system's folder tree, ``packages /venv`` for the virtual environment. Licences stay.
Bytecode is written here because a read-only container could not keep it, and would compile at every start.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("usr/lib/python3*", "usr/local/lib/python3*")
BUILDERS = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "venv")
INSTALLERS = ("pip", "pip-*", "setuptools", "setuptools-*", "wheel", "wheel-*")
SYSTEM = (
    *(f"{library}/{name}" for library in LIBRARIES for name in BUILDERS),
    *(f"{library}/{folder}/{name}" for library in LIBRARIES for name in INSTALLERS for folder in ("*-packages",)),
    *(f"usr{local}/bin/{name}" for local in ("", "/local") for name in ("2to3*", "idle*", "pip*", "pydoc*", "wheel*")),
    *(f"usr/share/{name}" for name in ("bash-completion", "info", "lintian", "locale", "man", "python-wheels")),
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "var/log/*",
)
PACKAGES = (
    "bin/[Aa]ctivate*",
    *(
        f"bin/{name}"
        for name in ("f2py", "numpy-config", "onnxruntime_test", "sar-experiment", "sar-export", "sar-train")
    ),
    *(f"lib/python3*/site-packages/{name}" for name in ("sar_train", "**/*.pyi", "**/tests", "**/include")),
    *(f"lib/python3*/site-packages/numpy/{name}" for name in ("f2py", "**/lib/*.a", "typing/tests", "testing")),
    *(f"lib/python3*/site-packages/onnxruntime/{name}" for name in ("quantization", "tools", "transformers")),
)
EVERYONE = stat.S_IWOTH
PRIVILEGED = stat.S_ISUID | stat.S_ISGID


def main(kind: str, root: Path) -> int:
    """Trim one tree in place."""
    for pattern in {"system": SYSTEM, "packages": PACKAGES}[kind]:
        for path in sorted(root.glob(pattern), reverse=True):
            remove(path)
    if kind == "system":
        for path in [path for path in (root / "usr/share/doc").rglob("*") if path.name != "copyright"]:
            if path.is_file():
                path.unlink()
        for path in real_paths(root):
            harden(path, root)
    libraries = LIBRARIES if kind == "system" else ("lib/python3*",)
    done = [compiled(path) for pattern in libraries for path in root.glob(pattern)]
    return 0 if all(done) else 1


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def real_paths(root: Path) -> Iterator[Path]:
    """Everything under a root except what the kernel or the builder provides."""
    for top in root.iterdir():
        if top.name not in ("dev", "proc", "sys") and not top.is_symlink():
            yield top
            yield from (path for path in top.rglob("*") if not path.is_symlink())


def harden(path: Path, root: Path) -> None:
    """Take set-user-id bits from files, and from everyone the right to write anywhere but in /tmp."""
    mode = path.stat().st_mode
    wanted = mode & ~PRIVILEGED if path.is_file() else mode
    if path != root / "tmp":
        wanted &= ~EVERYONE
    if wanted != mode:
        path.chmod(stat.S_IMODE(wanted))


def compiled(library: Path) -> bool:
    """Write bytecode that is used without a look at its source, which nothing can change in a read-only image."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    return bool(compileall.compile_dir(library, quiet=1, force=True, invalidation_mode=mode, workers=0))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2])))
