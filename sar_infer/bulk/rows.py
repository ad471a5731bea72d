"""The row of an input, and the two kinds of file that hold rows: Parquet and JSON lines.

Both kinds pack the rows of some inputs in a worker, write a part from packed rows, and read the errors of a part.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bulk.containers import Flaw
from sar_infer.errors import InputError, install
from sar_infer.results import ImageResult

Row = dict[str, Any]
Packed = Any
"""Rows in the form of the output, made by a worker and written by the process that owns the file."""
EmbeddingType = Literal["float32", "float16"]
METADATA = b"sar_clip"
"""Key of a Parquet file's metadata that holds the settings of the run, as JSON."""
_GROUP = 4096
"""Rows of a row group that is written."""


@dataclass(frozen=True)
class Columns:
    """The optional columns of a row.

    Attributes:
        label_set: Include the classes of a conformal set.
        explained: Include margin and runner-up.
        several: Include the classes that an image shows, with their scores and boxes.
        embedding: Include the image's unit row, in this type.
        width: Length D of the embedding.
        banks: The names of several banks, each of which has one column with all that is answered.
    """

    label_set: bool = False
    explained: bool = False
    embedding: EmbeddingType | None = None
    width: int = 0
    several: bool = False
    banks: tuple[str, ...] = ()


def answered(key: str, result: ImageResult, embedding: Floats, columns: Columns) -> Row:
    """Return the row of an image that was classified; ``embedding`` (D,), of the whole image."""
    if result.banks is None:
        row = {"key": key, **_answer(result, columns)}
    else:
        row = {"key": key, **{name: _answer(one, columns) for name, one in result.banks.items()}}
    if columns.embedding:
        row["embedding"] = embedding.astype(columns.embedding)
    return row | {"error": None, "error_kind": None}


def _answer(result: ImageResult, columns: Columns) -> Row:
    best = result.predictions[0] if result.predictions else None
    row: Row = {
        **{name: getattr(best, name, None) for name in ("label", "score", "logit", "similarity", "source")},
        "labels": [prediction.label for prediction in result.predictions],
        "scores": [prediction.score for prediction in result.predictions],
        "unknown": result.unknown,
        "reason": result.reason,
    }
    if columns.label_set:
        row["label_set"] = list(result.label_set or ())
    if columns.explained:
        why = result.explanation
        row |= {name: getattr(why, name, None) for name in ("margin", "runner_up")}
    if columns.several:
        row["several"] = [{**one._asdict(), "box": list(one.box)} for one in result.labels or ()]
    return row


def flawed(key: str, flaw: Flaw, columns: Columns) -> Row:
    """Return the row of an input without an answer."""
    empty: Mapping[str, Any] = dict.fromkeys(names(columns))
    return {**empty, "key": key, "error": flaw.reason, "error_kind": flaw.kind}


def names(columns: Columns) -> list[str]:
    """Return the names of all columns, in order."""
    return [
        "key",
        *(columns.banks or _answer_names(columns)),
        *(["embedding"] if columns.embedding else []),
        *("error", "error_kind"),
    ]


def _answer_names(columns: Columns) -> list[str]:
    return [
        *("label", "score", "logit", "similarity", "source", "labels", "scores", "unknown", "reason"),
        *(["label_set"] if columns.label_set else []),
        *(["margin", "runner_up"] if columns.explained else []),
        *(["several"] if columns.several else []),
    ]


@dataclass(frozen=True)
class JsonLines:
    """JSON lines: one object a line, UTF-8, with the same keys in all. Needs only Python."""

    columns: Columns
    suffix: str = ".jsonl"

    def pack(self, rows: Sequence[Row]) -> bytes:
        """Return some rows of one part in the form of the file."""
        lines = []
        for row in rows:
            if row.get("embedding") is not None:
                row = row | {"embedding": row["embedding"].tolist()}  # noqa: PLW2901
            lines.append(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return b"".join(lines)

    def write(self, stream: IO[bytes], packed: Iterable[bytes]) -> None:
        """Write a part from packed rows."""
        stream.writelines(packed)

    def flaws(self, stream: IO[bytes]) -> tuple[int, list[Row]]:
        """Return how many rows a part has, and key, error kind and reason of those without an answer."""
        count, rejected_rows = 0, []
        for line in stream:
            count += 1
            row = json.loads(line)
            if row["error"] is not None:
                rejected_rows.append({name: row[name] for name in ("key", "error_kind", "error")})
        return count, rejected_rows


@dataclass(frozen=True)
class Parquet:
    """Parquet: typed columns in row groups of some thousand rows, packed by zstd.

    Attributes:
        columns: The columns of a row.
        settings: Settings of the run, for the metadata of the file.
    """

    columns: Columns
    settings: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ".parquet"

    def pack(self, rows: Sequence[Row]) -> Any:
        """Return some rows of one part as an Arrow record batch."""
        import pyarrow

        arrays = []
        for column in self._schema:
            values = [row[column.name] for row in rows]
            if column.name != "embedding":
                arrays.append(pyarrow.array(values, column.type))
                continue
            empty = np.zeros(self.columns.width, self.columns.embedding)
            numbers = np.concatenate([empty[:0], *(empty if value is None else value for value in values)])
            missing = pyarrow.array([value is None for value in values], pyarrow.bool_())
            arrays.append(
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers), type=column.type, mask=missing)
            )
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self._schema)

    def write(self, stream: IO[bytes], packed: Iterable[Any]) -> None:
        """Write a part from packed rows."""
        import pyarrow.parquet

        batches: list[Any] = []
        with pyarrow.parquet.ParquetWriter(stream, self._schema, compression="zstd") as writer:
            for batch in packed:
                batches.append(batch)
                if sum(map(len, batches)) >= _GROUP:
                    writer.write_table(pyarrow.Table.from_batches(batches))
                    batches.clear()
            if batches:
                writer.write_table(pyarrow.Table.from_batches(batches))

    def flaws(self, stream: IO[bytes]) -> tuple[int, list[Row]]:
        """Return how many rows a part has, and key, error kind and reason of those without an answer."""
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False)  # without threads of Arrow, as is the next line:
        table = file.read(["key", "error_kind", "error"], use_threads=False)  # one that still runs at exit aborts it
        rejected_rows: list[Row] = table.filter(table.column("error").is_valid()).to_pylist()
        return len(table), rejected_rows

    @functools.cached_property
    def _schema(self) -> Any:
        import pyarrow

        kinds = {
            "key": pyarrow.string(),
            "labels": pyarrow.list_(pyarrow.string()),
            "label_set": pyarrow.list_(pyarrow.string()),
            "scores": pyarrow.list_(pyarrow.float32()),
            **dict.fromkeys(("score", "logit", "similarity", "unknown", "margin"), pyarrow.float32()),
        }
        numbers = pyarrow.list_(pyarrow.float32())
        label = {"label": pyarrow.string(), "score": pyarrow.float32(), "box": numbers}
        kinds["several"] = pyarrow.list_(pyarrow.struct(label))
        if self.columns.embedding:
            number = pyarrow.float16() if self.columns.embedding == "float16" else pyarrow.float32()
            kinds["embedding"] = pyarrow.list_(number, self.columns.width)
        if self.columns.banks:
            answer = [(name, kinds.get(name, pyarrow.string())) for name in _answer_names(self.columns)]
            kinds |= dict.fromkeys(self.columns.banks, pyarrow.struct(answer))
        fields = [
            pyarrow.field(name, kinds.get(name, pyarrow.string()), nullable=name != "key")
            for name in names(self.columns)
        ]
        return pyarrow.schema(fields, {METADATA: json.dumps(self.settings, ensure_ascii=False).encode()})


RowFormat = JsonLines | Parquet


def check_parquet() -> None:
    """Raise if Parquet cannot be written.

    Raises:
        InputError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(f"Parquet needs pyarrow: {install('bulk')}, or write --format jsonl") from None
