"""Classify a folder of photos into a Parquet file, a row each, in constant memory.

    python examples/classify_folder.py [FOLDER]     after train_and_export.py with the same FOLDER

``sar-classify examples/clothes/test --bundle FOLDER/bundle --out answers`` does it on every core, and can be
taken up again after a kill; this is how to put answers into a pipeline of your own.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sar_infer import Classifier

CLOTHES = Path(__file__).parent / "clothes"
SCHEMA = pa.schema([("image", pa.string()), ("label", pa.string()), ("score", pa.float64()), ("error", pa.string())])


def main(folder: Path) -> None:
    """Write the answers, then read them back and count the labels."""
    classifier = Classifier.open(folder / "bundle")
    classes = classifier.class_set()
    with pq.ParquetWriter(folder / "answers.parquet", SCHEMA) as file:
        for result in classifier.stream(sorted(CLOTHES.glob("test/*/*.jpg")), classes, top_k=1):
            best = result.predictions[0] if result.predictions else None  # none: the image cannot be read
            row = {
                "image": result.image,
                "label": best and best.label,
                "score": best and best.score,
                "error": result.error and str(result.error),
            }
            file.write(pa.RecordBatch.from_pylist([row], SCHEMA))
    table = pq.read_table(folder / "answers.parquet")
    for count in sorted(table["label"].value_counts().to_pylist(), key=lambda entry: -entry["counts"]):
        print(f"{count['counts']:>4}  {count['values']}")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    if not (folder / "bundle").is_dir():
        sys.exit(f"{folder / 'bundle'} is missing; make it with: python examples/train_and_export.py {folder}")
    main(folder)
