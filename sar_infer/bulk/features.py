"""Features of photos that nobody labelled: encoded from where a bulk run reads, or from what one wrote.

They come as keys and unit embeddings (N, D) of a few photos at a time, so that any number takes constant memory.
Results of a bulk run with ``--embeddings`` are read as they are, without an encoder.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bulk.chunks import batches
from sar_infer.bulk.containers import Flaw
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.rows import METADATA, check_parquet
from sar_infer.bulk.worker import fetched
from sar_infer.classifier import Classifier
from sar_infer.encoders.encoders import finite
from sar_infer.errors import ImageError, InputError, raised_as
from sar_infer.images.load import ImageSource
from sar_infer.images.prefetch import decode_batches, decode_image, readable

_ROWS = 1024
"""Rows that are read at once from a result file."""
Features = tuple[list[str], Floats]
Skipped = Callable[[str, str], object]


def features(
    arguments: Sequence[str],
    classifier: Classifier,
    skipped: Skipped,
    *,
    column: str = "image",
    key_column: str | None = None,
    batch_size: int = 16,
) -> Iterator[Features]:
    """Yield keys and features (N, D) float32 of all photos, in the order of the arguments, a few at a time.

    Args:
        arguments: As of `InputSources`; or what a bulk run with ``--embeddings`` wrote: its folder, or Parquet files.
        classifier: Encodes photos; results have to be of its encoder.
        skipped: Called with key and reason of each photo that cannot be read; the others go on.
        column: Column of the images in Parquet files.
        key_column: Column of their keys; None = ``FILE#ROW``.
        batch_size: Photos that are encoded together.

    Raises:
        InputError: A place does not exist or has no photo, or a result file has no embeddings or those of another
            encoder.
        BundleError: The graph is broken.
    """
    for argument in arguments:
        if (results := _result_files(argument)) is None:
            sources = InputSources((argument,), column, key_column)
            yield from _encoded(sources, classifier, skipped, batch_size)
        for path in results or ():
            yield from _stored(path, classifier, skipped)


def count_photos(arguments: Sequence[str], column: str = "image", key_column: str | None = None) -> int | None:
    """Return the number of photos, as progress bars want it; None if it is not known before all are read.

    Raises:
        InputError: A place does not exist or has no photo.
    """
    total = 0
    for argument in arguments:
        if (results := _result_files(argument)) is None:
            counts = [chunk.count for chunk in InputSources((argument,), column, key_column).chunks()]
            if not any(count != 0 for count in counts):
                raise InputError(f"{argument}: no image in it")
        else:
            counts = [int(_parquet(path).metadata.num_rows) for path in results]
        for count in counts:
            if count is None:
                return None
            total += count
    return total


def _encoded(sources: InputSources, classifier: Classifier, skipped: Skipped, batch_size: int) -> Iterator[Features]:
    """Yield the features of photos; the next batch is decoded while one is encoded."""
    keys: deque[str] = deque()

    def contents() -> Iterator[ImageSource]:
        for chunk in sources.chunks():
            for batch in batches(chunk.items(sources.column, sources.key_column), batch_size):
                for item, content in zip(batch, fetched(batch), strict=True):
                    if isinstance(content, Flaw):
                        skipped(item.key, content.reason)
                    else:
                        keys.append(item.key)
                        yield content

    spec = classifier.bundle.manifest.preprocess
    for batch in decode_batches(contents(), lambda image: decode_image(image, spec), batch_size):
        names = []
        for _, pixels in batch:
            key = keys.popleft()
            if isinstance(pixels, ImageError):
                skipped(key, str(pixels))
            else:
                names.append(key)
        if names:
            yield names, finite(classifier.embed_inputs(readable(batch)), classifier.choice.image)


def _result_files(argument: str) -> list[Path] | None:
    """Return the result files that an argument names; None if it names photos."""
    path = Path(argument)
    if path.is_dir():
        return sorted(path.glob("part-*.parquet")) or None
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return None
    return [path] if METADATA in (_parquet(path).schema_arrow.metadata or {}) else None


def _parquet(path: Path) -> Any:
    check_parquet()
    import pyarrow.parquet

    with raised_as(InputError, f"{path}: cannot be read"):
        return pyarrow.parquet.ParquetFile(path)


def _stored(path: Path, classifier: Classifier, skipped: Skipped) -> Iterator[Features]:
    """Yield the features of a result file.

    Raises:
        InputError: It cannot be read, has no embeddings, or those of another encoder.
    """
    manifest, file = classifier.bundle.manifest, _parquet(path)
    if "embedding" not in file.schema_arrow.names:
        raise InputError(f"{path}: results without embeddings; run sar-classify again with --embeddings")
    expected = manifest.encoder_digest
    encoder = json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"{}")).get("encoder", expected)
    if encoder != expected:
        raise InputError(f"{path}: embeddings of another encoder ({encoder[:8]}, expected {expected[:8]})")
    with raised_as(InputError, f"{path}: cannot be read"):
        for batch in file.iter_batches(_ROWS, columns=["key", "embedding", "error"]):
            for row in batch.filter(batch.column("embedding").is_null()).to_pylist():
                skipped(row["key"], row["error"] or "no embedding")
            batch = batch.filter(batch.column("embedding").is_valid())  # noqa: PLW2901
            if not len(batch):
                continue
            flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
            with np.errstate(over="ignore"):  # then the length is infinite
                rows = np.asarray(flat, np.float32).reshape(len(batch), -1)
                lengths: Any = np.linalg.norm(rows, axis=1, keepdims=True)
            if rows.shape[1] != manifest.embed_dim or not (np.abs(lengths - 1) < 0.01).all():  # of float16
                raise InputError(
                    f"{path}: expected embeddings of {manifest.embed_dim} numbers and length 1, as of this bundle's "
                    f"encoder; got {rows.shape[1]} numbers and length {float(lengths.flat[0]):.3g}"
                )
            yield batch.column("key").to_pylist(), rows / lengths
