"""Features of photos that nobody labelled: encoded from where a bulk run reads, or from what one kept.

A piece is a few rows with their keys, so that any number of photos takes constant memory. Result files of a bulk run
with ``--embeddings`` are read as they are, without an encoder.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bulk.chunks import batches
from sar_infer.bulk.containers import Flaw
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.rows import METADATA, JsonLines, check_parquet
from sar_infer.bulk.worker import fetched
from sar_infer.classifier import Classifier
from sar_infer.encoders.encoders import finite
from sar_infer.errors import ImageError, InputError, reason_of
from sar_infer.images.load import ImageSource
from sar_infer.images.prefetch import decode_batches, readable
from sar_infer.results import Profile

_PARQUET, _LINES = ".parquet", JsonLines.suffix
_ROWS = 1024
"""Rows that are read at once from a result file."""
_BATCH = 16
_PARTS = "part-*"
"""Files of a folder that a bulk run wrote."""


@dataclass(frozen=True, eq=False)
class FeaturePiece:
    """Some photos of a stream.

    Attributes:
        keys: One for each photo: its path or URL, ``SHARD/MEMBER``, ``FILE#ROW``, or the key of a result row.
        rows: (N, D) float32, their unit rows.
    """

    keys: tuple[str, ...]
    rows: Floats

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class FeatureSources:
    """Places of photos, or of their features.

    Attributes:
        arguments: As of `InputSources`: folders, files, lists, tar shards, Parquet files, URLs; or result files of a
            bulk run with ``--embeddings``, Parquet or JSON lines, or the folder that such a run wrote.
        column: Column of the images in Parquet files.
        key_column: Column of their keys; None = ``FILE#ROW``.
        batch_size: Photos that are encoded together.
    """

    arguments: Sequence[str]
    column: str = "image"
    key_column: str | None = None
    batch_size: int = _BATCH

    def pieces(
        self, classifier: Classifier, skipped: Callable[[str, str], object] = lambda key, reason: None
    ) -> Iterator[FeaturePiece]:
        """Yield the features of all photos, in the order of the arguments, a few at a time.

        Args:
            classifier: Encodes photos; results have to be of its encoder.
            skipped: Called with key and reason of each photo that cannot be read; the others go on.

        Raises:
            InputError: A place does not exist or has no photo, or a result file has no embeddings or those of another
                encoder.
            BundleError: The graph is broken.
        """
        manifest = classifier.bundle.manifest
        for argument in self.arguments:
            results = _result_files(argument)
            if results is None:
                yield from self._encoded(argument, classifier, skipped)
            for path in results or ():
                yield from _stored(path, manifest.embed_dim, manifest.encoder_digest, skipped)

    def count(self) -> int | None:
        """Return the number of photos, as progress bars want it; None if it is not known before all are read.

        Raises:
            InputError: A place does not exist or has no photo.
        """
        total = 0
        for argument in self.arguments:
            results = _result_files(argument)
            if results is None:
                counts = [chunk.count for chunk in self._sources(argument).chunks()]
                if not any(count != 0 for count in counts):
                    raise InputError(f"{argument}: no image in it")
            else:
                counts = [_rows_of(path) for path in results]
            for count in counts:
                if count is None:
                    return None
                total += count
        return total

    def _sources(self, argument: str) -> InputSources:
        return InputSources((argument,), self.column, self.key_column)

    def _encoded(
        self, argument: str, classifier: Classifier, skipped: Callable[[str, str], object]
    ) -> Iterator[FeaturePiece]:
        """Yield the features of photos; the next batch is decoded while one is encoded."""
        keys: deque[str] = deque()
        chunks = self._sources(argument).chunks()

        def contents() -> Iterator[ImageSource]:
            for chunk in chunks:
                for batch in batches(chunk.items(self.column, self.key_column), self.batch_size):
                    for item, content in zip(batch, fetched(batch), strict=True):
                        if isinstance(content, Flaw):
                            skipped(item.key, content.reason)
                        else:
                            keys.append(item.key)
                            yield content

        spec = classifier.bundle.manifest.preprocess
        for batch in decode_batches(contents(), spec, self.batch_size, Profile()):
            names = []
            for _, pixels in batch:
                key = keys.popleft()
                if isinstance(pixels, ImageError):
                    skipped(key, str(pixels))
                else:
                    names.append(key)
            if names:
                yield FeaturePiece(tuple(names), finite(classifier.encode(readable(batch)), classifier.choice.image))


def _result_files(argument: str) -> list[Path] | None:
    """Return the result files that an argument stands for; None if it stands for photos."""
    path = Path(argument)
    if path.is_dir():
        parts = sorted(file for file in path.glob(_PARTS) if file.suffix in (_PARQUET, _LINES))
        return parts or None
    if path.suffix.lower() == _LINES:
        if not path.is_file():
            raise InputError(f"{argument}: no such file")
        return [path]
    is_parquet = path.suffix.lower() == _PARQUET and path.is_file()
    return [path] if is_parquet and METADATA in (_parquet(path).schema_arrow.metadata or {}) else None


def _parquet(path: Path) -> Any:
    check_parquet()
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except Exception as error:  # pyarrow raises almost anything
        raise InputError(f"{path}: cannot be read: {reason_of(error)}") from None


def _rows_of(path: Path) -> int:
    if path.suffix == _PARQUET:
        return int(_parquet(path).metadata.num_rows)
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _stored(path: Path, width: int, encoder: str, skipped: Callable[[str, str], object]) -> Iterator[FeaturePiece]:
    """Yield the features of a result file.

    Raises:
        InputError: It cannot be read, has no embeddings, or those of another encoder.
    """
    read = _from_parquet(path, encoder) if path.suffix.lower() == _PARQUET else _from_lines(path)
    for keys, rows, errors in read:
        present = [number for number, row in enumerate(rows) if row is not None]
        for number in set(range(len(keys))) - set(present):
            skipped(keys[number], errors[number] or "no embedding")
        if not present:
            continue
        try:
            features = np.array([rows[number] for number in present], np.float32)
        except (TypeError, ValueError):
            features = np.empty((0, 0), np.float32)
        if features.shape != (len(present), width):
            raise InputError(f"{path}: expected embeddings of {width} numbers, as of this bundle's encoder")
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if not (np.abs(lengths - 1) < 0.01).all():  # float16 keeps three digits
            raise InputError(f"{path}: expected embeddings of length 1, got {float(lengths.flat[0]):.3g}")
        yield FeaturePiece(tuple(keys[number] for number in present), features / lengths)


def _from_parquet(path: Path, encoder: str) -> Iterator[tuple[list[str], list[Any], list[str | None]]]:
    file = _parquet(path)
    if "embedding" not in file.schema_arrow.names:
        raise InputError(f"{path}: results without embeddings; run sar-classify again with --embeddings")
    settings = json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"{}"))
    if settings.get("encoder", encoder) != encoder:
        raise InputError(f"{path}: embeddings of another encoder ({settings['encoder'][:8]}, expected {encoder[:8]})")
    try:
        for batch in file.iter_batches(_ROWS, columns=["key", "embedding", "error"]):
            values = batch.column(1)
            flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), np.float32)
            valid = np.asarray(values.is_valid())
            rows: list[Any] = [None] * len(valid)
            width = len(flat) // max(1, int(valid.sum()))
            for number, row in zip(np.flatnonzero(valid).tolist(), flat.reshape(-1, max(1, width)), strict=True):
                rows[number] = row
            yield batch.column(0).to_pylist(), rows, batch.column(2).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are
        raise InputError(f"{path}: cannot be read: {reason_of(error)}") from None


def _from_lines(path: Path) -> Iterator[tuple[list[str], list[Any], list[str | None]]]:
    with path.open("rb") as stream:
        lines = enumerate(stream, start=1)
        while group := list(itertools.islice(lines, _ROWS)):
            rows = []
            for number, line in group:
                try:
                    row = json.loads(line)
                    rows.append((str(row["key"]), row.get("embedding", ...), row["error"]))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise InputError(f"{path}: line {number} is no row of sar-classify --out") from None
            if any(embedding is ... for _, embedding, _ in rows):
                raise InputError(f"{path}: results without embeddings; run sar-classify again with --embeddings")
            yield tuple(map(list, zip(*rows, strict=True)))  # type: ignore[misc]
