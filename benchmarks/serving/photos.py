"""The photos that are sent: real ones of mixed sizes, as JPEG files in one folder.

Of ``../shared/data`` where it is there, else what comes with scikit-image. Enlarged ones stand for what phones send.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

MIXES = {
    "mixed": {"imagenet": 36, "caltech": 12, "1": 8, "4": 3, "12": 1},
    "small": {"imagenet": 45, "caltech": 15},
    "large": {"4": 8, "12": 8},
}
"""How many photos of each kind; a number is the million pixels that a photo is enlarged to."""
_QUALITY = 90


def make(folder: Path, mix: str, shared: Path) -> str:
    """Write the photos of ``mix`` to a new folder and say in words what they are."""
    folder.mkdir(parents=True)
    sources = _sources(shared)
    used = dict.fromkeys(sources, 0)
    words = []
    for kind, count in MIXES[mix].items():
        source = kind if kind in sources else "imagenet"
        for _ in range(count):
            files = sources[source]
            path = files[used[source] * len(files) // sum(MIXES[mix].values()) % len(files)]
            used[source] += 1
            target = folder / f"{len(list(folder.iterdir())):03}.jpg"
            if kind in sources and path.suffix == ".jpg":
                target.write_bytes(path.read_bytes())
            else:
                _write(path, target, None if kind in sources else float(kind))
        words.append(f"{count} {'of ' + kind if kind in sources else 'enlarged to ' + kind + ' MP'}")
    sizes = [path.stat().st_size for path in folder.iterdir()]
    origin = "" if sources["caltech"] != sources["imagenet"] else " (both stand for photos of scikit-image)"
    return f"{len(sizes)} JPEG photos{origin}: {', '.join(words)}; {sum(sizes) / len(sizes) / 1024:.0f} KiB on average"


def _sources(shared: Path) -> dict[str, list[Path]]:
    imagenet = sorted((shared / "imagenet_sample").glob("*.jpg"))
    caltech = sorted((shared / "caltech-101" / "101_ObjectCategories").glob("*/image_0001.jpg"))
    if imagenet and caltech:
        return {"imagenet": imagenet, "caltech": caltech}
    spec = find_spec("skimage")
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png")
    data = Path(spec.origin or "").parent / "data" if spec else Path()
    files = [data / name for name in names if (data / name).is_file()]
    if not files:
        raise SystemExit("no photos: neither ../shared/data nor scikit-image is there")
    return {"imagenet": files, "caltech": files}


def _write(path: Path, target: Path, megapixels: float | None) -> None:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = math.sqrt(megapixels * 1e6 / (image.width * image.height)) if megapixels else 256 / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    image.resize(size, Image.Resampling.LANCZOS).save(target, "JPEG", quality=_QUALITY)
