from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from support.bulk_runs import answered_here
from support.many import small_png, write_parquet

from sar_infer import Classifier
from sar_infer.bulk.features import FeaturePiece, FeatureSources
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


def joined(pieces: list[FeaturePiece]) -> tuple[list[str], np.ndarray]:
    assert all(len(piece) == len(piece.rows) > 0 for piece in pieces)
    return [key for piece in pieces for key in piece.keys], np.concatenate([piece.rows for piece in pieces])


def read(classifier: Classifier, *arguments: Path) -> tuple[list[str], np.ndarray, list[str]]:
    skipped: list[str] = []
    sources = FeatureSources([str(argument) for argument in arguments], batch_size=3)
    pieces = [*sources.pieces(classifier, lambda key, _: skipped.append(key))]
    assert sources.count() == sum(map(len, pieces)) + len(skipped)
    return *joined(pieces), skipped


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


@pytest.mark.parametrize(
    ("out", "kind"), [("rows.parquet", "float32"), ("rows.jsonl", "float16"), ("parts", "float16")]
)
def test_embeddings_that_a_bulk_run_wrote(
    tmp_path: Path, classifier: Classifier, bundle_path: Path, out: str, kind: str
) -> None:
    folder = folder_of(tmp_path / "photos")
    results = tmp_path / out
    options = WorkerOptions(str(bundle_path), embedding=kind)  # type: ignore[arg-type]
    run(InputSources((str(folder),), chunk_size=4), options, str(results), Progress())
    keys, rows, skipped = read(classifier, results)
    expected_keys, expected, expected_skipped = read(classifier, folder)
    assert (keys, skipped) == (expected_keys, expected_skipped)
    np.testing.assert_allclose(rows, expected, atol=1e-6 if kind == "float32" else 2e-3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_results_that_cannot_be_used(tmp_path: Path, classifier: Classifier, bundle_path: Path) -> None:
    folder = folder_of(tmp_path / "photos")
    for embedding, out in ((None, "plain.parquet"), (None, "plain.jsonl"), ("float32", "rows.parquet")):
        options = WorkerOptions(str(bundle_path), embedding=embedding)  # type: ignore[arg-type]
        run(InputSources((str(folder),)), options, str(tmp_path / out), Progress())
    for out in ("plain.parquet", "plain.jsonl"):
        with pytest.raises(InputError, match="results without embeddings; run sar-classify again with --embeddings"):
            read(classifier, tmp_path / out)
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    foreign = table.replace_schema_metadata({"sar_clip": '{"encoder": "0123456789"}'})
    pyarrow.parquet.write_table(foreign, tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="embeddings of another encoder"):
        read(classifier, tmp_path / "foreign.parquet")
    (tmp_path / "other.jsonl").write_text('{"key": "a", "error": null, "embedding": [1.0, 0.0]}\n')
    with pytest.raises(InputError, match="expected embeddings of"):
        read(classifier, tmp_path / "other.jsonl")
    (tmp_path / "wrong.jsonl").write_text('{"name": "a"}\n')
    with pytest.raises(InputError, match="line 1 is no row"):
        read(classifier, tmp_path / "wrong.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read(classifier, tmp_path / "missing.jsonl")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="a folder without images"):
        read(classifier, empty)
