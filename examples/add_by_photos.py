"""Add four garments to the six that were trained, by their names and two photos each; nothing is trained again.

    python examples/add_by_photos.py [FOLDER]       after train_and_export.py with the same FOLDER

``sar-bank add shop.safetensors --photos examples/clothes/added`` does the same on the command line.
"""

import sys
from pathlib import Path

from sar_infer import Classifier
from sar_infer.bank import add

CLOTHES = Path(__file__).parent / "clothes"


def main(folder: Path) -> None:
    """Add the classes, keep them in a bank file, and count which test photos are found with it."""
    classifier = Classifier.open(folder / "bundle")
    new = sorted(path.name for path in (CLOTHES / "added").iterdir())
    photos = {name: classifier.embed_photos(sorted((CLOTHES / "added" / name).iterdir())) for name in new}
    bank = add(classifier.bank, new, classifier.embed_names(new), photos=photos, by="examples/add_by_photos.py")
    bank.save(folder / "shop.safetensors")

    shop = Classifier.open(folder / "bundle", bank=folder / "shop.safetensors")
    for garment in sorted((CLOTHES / "test").iterdir()):
        results = shop.classify(sorted(garment.iterdir()), top_k=1)
        right = sum(result.predictions[0].label == garment.name for result in results)
        print(f"{garment.name:<20}{right:>3} of {len(results)}{'   added' if garment.name in new else ''}")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    if not (folder / "bundle").is_dir():
        sys.exit(f"{folder / 'bundle'} is missing; make it with: python examples/train_and_export.py {folder}")
    main(folder)
