"""A layout of your own: photos in one folder, called after their classes, such as ``hat_017.jpg``.

    python examples/new_layout.py [FOLDER]

In a file of its own in ``sar_train/data/readers/`` it is found by being there; here it is registered by this script.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from sar_infer.images.formats import has_image_suffix
from sar_train import train
from sar_train.data.dataset import DataOptions, Dataset
from sar_train.data.readers.base import Reader, readers
from sar_train.errors import DataError

CLOTHES = Path(__file__).parent / "clothes" / "train"
NAME = re.compile(r"(?P<label>.+)_\d+\.\w+")


@readers.register("named-photos")
class NamedPhotos(Reader):
    """``CLASS_NUMBER.jpg`` in one folder that has no folders."""

    def recognises(self, path: Path) -> bool:
        """Return True for a folder without folders, with a photo that is called so."""
        if not path.is_dir() or any(entry.is_dir() for entry in path.iterdir()):
            return False
        return any(has_image_suffix(file.name) and NAME.fullmatch(file.name) for file in path.iterdir())

    def read(self, path: Path, options: DataOptions) -> Dataset:
        """Return all photos as training photos, from which some are held out; none is opened.

        Raises:
            DataError: a photo is called otherwise.
        """
        photos: dict[str, list[Path]] = {}
        for file in sorted(file for file in path.iterdir() if has_image_suffix(file.name)):
            match = NAME.fullmatch(file.name)
            if match is None:
                raise DataError(f"{file}: expected a name such as hat_017.jpg; rename the photo, or move it away")
            photos.setdefault(match["label"], []).append(file)
        return Dataset.from_paths(path.resolve().name, path, {"train": photos})


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    flat = folder / "flat"
    flat.mkdir(parents=True, exist_ok=True)
    for photo in sorted(CLOTHES.glob("*/*.jpg")):
        shutil.copyfile(photo, flat / f"{photo.parent.name}_{photo.name}")
    run = train(flat, shots=4, epochs=2, prompt="learned", out=folder / "layout", overwrite=True, progress=print)
    print(f"\n{len(run.record['dataset']['classes'])} classes, {run.scores.base_accuracy:.1f} %")
