"""Corrections: a photo that is answered wrongly is taught once. Is the next answer right, and are the others?

``python -m benchmarks.corrections [FOLDER…]``: each folder has one folder of photos for each class. Banks of four
photos a class answer the other photos. Of those answered wrongly, some are taught one at a time, each to the bank as it
was. Printed are the share whose next answer is right, the change of the accuracy on the other photos, and the median
time from the edit to that answer, with the closed forms as they were fitted (*as fitted*), of the photos as they are
(*next answer*), and after ``fit``.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer import Classifier
from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, PhotoSet, edits
from sar_infer.bank.entry import MODEL

PHOTOS, DRAWS, TAUGHT, MOST_CLASSES, MOST_PHOTOS = 4, 6, 6, 12, 30
FOLDERS = [
    f"../shared/data/{name}"
    for name in ("clothes/train", "dtd/images", "caltech-101/101_ObjectCategories", "pacs/photo", "pacs/sketch")
]
WAYS = ("as fitted", "next answer", "fit")


def some(photos: PhotoSet, numbers: list[int]) -> PhotoSet:
    """Return some photos of a class."""
    digests = [photos.digests[number] for number in numbers]
    return PhotoSet.of(digests, np.array([photos.recent[digest] for digest in digests], np.float32))


def taught(classifier: Classifier, bank: ClassBank, name: str, photo: PhotoSet, way: str) -> ClassBank:
    """Return the bank with one more photo."""
    after = edits.add_photos(bank, {name: photo})
    if way == "fit":
        return edits.fit(after, classifier.fit_model(after).fitted.model.tensors())
    if way == "as fitted":  # a record that names no photos is used as it is
        record = after.records[MODEL]._replace(data={})
        return after.replaced(log=type(after.log)(folded={**after.entries, MODEL: record}))
    return after


def measure(folder: Path, classifier: Classifier) -> None:
    """Print the lines of one folder."""
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir()][:MOST_CLASSES]
    classes = {one.name: classifier.embed_photos(sorted(one.glob("*.jpg"))[:MOST_PHOTOS]) for one in folders}
    rng, right = np.random.default_rng(0), dict[str, list[bool]]()
    gains, seconds = dict[str, list[float]](), dict[str, list[float]]()
    for _ in range(DRAWS):
        order = {name: rng.permutation(len(photos)).tolist() for name, photos in classes.items()}
        first = {name: some(photos, order[name][:PHOTOS]) for name, photos in classes.items()}
        bank, _ = classifier.make_bank({name: (name,) for name in classes}, first, by="a benchmark")
        others = [(name, some(photos, [n])) for name, photos in classes.items() for n in order[name][PHOTOS:]]
        rows, truth = np.concatenate([one.rows for _, one in others]), np.array([name for name, _ in others])

        def answers(bank: ClassBank, rows: Floats = rows) -> npt.NDArray[np.str_]:
            chosen = classifier.class_set(bank=bank)
            best = classifier.logits(rows, chosen).argmax(axis=1)
            return np.array([chosen.names[column] for column in best.tolist()])

        before = answers(bank) == truth
        for number in rng.permutation(np.flatnonzero(~before))[:TAUGHT].tolist():
            rest = np.arange(len(truth)) != number
            for way in WAYS:
                started = time.perf_counter()
                name, photo = others[number]
                after = taught(classifier, bank, name, photo, way)
                answers(after, rows[number : number + 1])
                seconds.setdefault(way, []).append(time.perf_counter() - started)
                now = answers(after) == truth
                right.setdefault(way, []).append(bool(now[number]))
                gains.setdefault(way, []).append(float(now[rest].mean() - before[rest].mean()))
    for way in WAYS if right else ():
        print(
            f"{folder} ({len(classes)} classes), {way}: {sum(right[way])} of {len(right[way])} right, others "
            f"{100 * statistics.mean(gains[way]):+.2f} points, {1000 * statistics.median(seconds[way]):.0f} ms"
        )


if __name__ == "__main__":
    for path in sys.argv[1:] or FOLDERS:
        measure(Path(path), Classifier.open(device="cpu", threads=2))
