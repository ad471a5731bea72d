"""Rows as Parquet, typed, with what made them in the file's own metadata."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from sar_infer.bulk.outputs.rows import Columns, Row, names
from sar_infer.errors import InputError

METADATA = b"sar_clip"
"""Key of the file's metadata under which the settings of the run stand, as JSON."""
_GROUP = 4096
"""Rows of a row group."""


@dataclass(frozen=True)
class Parquet:
    """Row groups of some thousand rows, zstd.

    Attributes:
        columns: What rows have.
        settings: Of the run, for the metadata.
    """

    columns: Columns
    settings: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ".parquet"

    def pack(self, rows: Sequence[Row]) -> Any:
        """See ``Form``; an Arrow record batch."""
        import pyarrow

        schema = self._schema
        arrays = [self._array([row[f.name] for row in rows], f) for f in schema]
        return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)

    def write(self, path: Path, packed: Iterable[Any]) -> None:
        """See ``Form``."""
        import pyarrow

        with _writer(path, self._schema) as writer:
            waiting, rows = [], 0
            for batch in packed:
                waiting.append(batch)
                rows += len(batch)
                if rows >= _GROUP:
                    writer.write_table(pyarrow.Table.from_batches(waiting))
                    waiting, rows = [], 0
            if waiting:
                writer.write_table(pyarrow.Table.from_batches(waiting))

    def flaws(self, stream: IO[bytes]) -> tuple[int, list[Row]]:
        """See ``Form``; only three columns are read."""
        import pyarrow.compute
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(stream)
        table = file.read(["key", "error_kind", "error"])
        found: list[Row] = table.filter(pyarrow.compute.field("error").is_valid()).to_pylist()
        return len(table), found

    def merge(self, path: Path, parts: Iterable[Callable[[], IO[bytes]]]) -> None:
        """See ``Form``; a row group at a time."""
        import pyarrow.parquet

        with _writer(path, self._schema) as writer:
            for part in parts:
                with part() as stream:
                    file = pyarrow.parquet.ParquetFile(stream)
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group))

    @functools.cached_property
    def _schema(self) -> Any:
        import pyarrow

        kinds = {
            "key": pyarrow.string(),
            "calibrated": pyarrow.bool_(),
            "unknown": pyarrow.bool_(),
            "labels": pyarrow.list_(pyarrow.string()),
            "label_set": pyarrow.list_(pyarrow.string()),
            "scores": pyarrow.list_(pyarrow.float32()),
            **dict.fromkeys(("score", "logit", "similarity", "margin", "energy"), pyarrow.float32()),
        }
        if self.columns.embedding:
            number = pyarrow.float16() if self.columns.embedding == "float16" else pyarrow.float32()
            kinds["embedding"] = pyarrow.list_(number, self.columns.width)
        fields = [
            pyarrow.field(name, kinds.get(name, pyarrow.string()), nullable=name != "key")
            for name in names(self.columns)
        ]
        return pyarrow.schema(fields, {METADATA: json.dumps(self.settings, ensure_ascii=False).encode()})

    def _array(self, values: list[Any], column: Any) -> Any:
        import pyarrow

        if column.name != "embedding":
            return pyarrow.array(values, column.type)
        empty = np.zeros(self.columns.width, self.columns.embedding)
        rows = np.concatenate([empty[:0], *(empty if value is None else value for value in values)])
        missing = pyarrow.array([value is None for value in values], pyarrow.bool_())
        return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows), type=column.type, mask=missing)


def check_parquet() -> None:
    """See that Parquet can be written.

    Raises:
        InputError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'sar-clip[bulk]', or write .jsonl") from None


def _writer(path: Path, schema: Any) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
