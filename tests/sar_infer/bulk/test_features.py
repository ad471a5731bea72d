from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from support.bulk_runs import answered_here
from support.many import small_png, write_parquet

from sar_infer import Classifier
from sar_infer.bulk.features import count_photos, features
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.run import run
from sar_infer.bulk.worker import WorkerOptions
from sar_infer.errors import InputError

__all__ = ["answered_here"]
pytestmark = pytest.mark.usefixtures("answered_here")


def folder_of(path: Path, count: int = 7) -> Path:
    path.mkdir()
    for number in range(count):
        (path / f"{number}.png").write_bytes(small_png(number))
    (path / "3x.png").write_bytes(b"no image")
    return path


def read(classifier: Classifier, *arguments: Path) -> tuple[list[str], np.ndarray, list[str]]:
    skipped: list[str] = []
    places = [str(argument) for argument in arguments]
    several = [*features(places, classifier, lambda key, _: skipped.append(key), batch_size=3)]
    keys = [key for some, _ in several for key in some]
    assert count_photos(places) == len(keys) + len(skipped)
    return keys, np.concatenate([rows for _, rows in several]), skipped


def test_photos_of_a_folder_a_list_and_parquet(tmp_path: Path, classifier: Classifier) -> None:
    folder = folder_of(tmp_path / "photos")
    files = [folder / f"{number}.png" for number in range(7)]
    expected = classifier.embed_images(files)
    keys, rows, skipped = read(classifier, folder)
    assert (keys, skipped) == ([str(file) for file in files], [str(folder / "3x.png")])
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    listing = tmp_path / "photos.txt"
    listing.write_text("\n".join(map(str, files[::-1])))
    shard = write_parquet(tmp_path / "photos.parquet", {"image": [file.read_bytes() for file in files]})
    keys, rows, skipped = read(classifier, listing, shard)
    assert (keys[:7], keys[7], skipped) == ([str(file) for file in files[::-1]], f"{shard}#0", [])
    np.testing.assert_allclose(rows, np.concatenate([expected[::-1], expected]), atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_embeddings_that_a_bulk_run_wrote(tmp_path: Path, classifier: Classifier, bundle_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "photos")
    results = tmp_path / "results"
    options = WorkerOptions(str(bundle_path), embedding=kind)  # type: ignore[arg-type]
    run(InputSources((str(folder),), chunk_size=4), options, str(results), Progress())
    keys, rows, skipped = read(classifier, *sorted(results.glob("part-*")))
    assert read(classifier, results)[0] == keys
    expected_keys, expected, expected_skipped = read(classifier, folder)
    assert (keys, skipped) == (expected_keys, expected_skipped)
    np.testing.assert_allclose(rows, expected, atol=1e-6 if kind == "float32" else 2e-3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_results_that_cannot_be_used(tmp_path: Path, classifier: Classifier, bundle_path: Path) -> None:
    folder = folder_of(tmp_path / "photos")
    for embedding, out in ((None, "plain"), ("float32", "rows")):
        options = WorkerOptions(str(bundle_path), embedding=embedding)  # type: ignore[arg-type]
        run(InputSources((str(folder),)), options, str(tmp_path / out), Progress())
    with pytest.raises(InputError, match="results without embeddings; run sar-classify again with --embeddings"):
        read(classifier, tmp_path / "plain")
    table = pyarrow.parquet.read_table(tmp_path / "rows" / "part-000000.parquet")
    foreign = table.replace_schema_metadata({"sar_clip": '{"encoder": "0123456789"}'})
    pyarrow.parquet.write_table(foreign, tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="embeddings of another encoder"):
        read(classifier, tmp_path / "foreign.parquet")
    for row in ([1.0, 0.0], [0.5] * 8, [1e30] * 8, [1e300] * 8):
        wrong = pyarrow.table({"key": ["a"], "embedding": [row], "error": [None]}).replace_schema_metadata(
            {"sar_clip": "{}"}
        )
        pyarrow.parquet.write_table(wrong, tmp_path / "wrong.parquet")
        with pytest.raises(InputError, match="expected embeddings of 8 numbers and length 1"):
            read(classifier, tmp_path / "wrong.parquet")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="a folder without images"):
        read(classifier, empty)
