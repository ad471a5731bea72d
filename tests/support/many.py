"""Inputs of bulk runs: small images in folders, tar shards and Parquet files, and the rows that come of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def small_png(number: int) -> bytes:
    """A PNG of 40 x 32 pixels; no two numbers below 2**24 give the same colours."""
    colour = np.array([number % 256, number // 256 % 256, number // 65536], dtype=np.uint8)
    values = np.random.default_rng(number).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    values[:, :20] = colour
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()


def write_images(folder: Path, count: int, first: int = 0) -> list[Path]:
    """``000.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(small_png(number))
    return paths


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A shard as webdataset writes it."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, columns: Mapping[str, Any], rows_of_group: int = 4) -> Path:
    """A file with some row groups."""
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path, row_group_size=rows_of_group)
    return path


def read_rows(location: Path) -> list[dict[str, Any]]:
    """Of a file, or of all parts of a folder in order."""
    if location.is_dir():
        return [row for piece in sorted(location.glob("part-*")) for row in read_rows(piece)]
    if location.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(location).to_pylist()
        return rows
    return [json.loads(line) for line in location.read_text("utf-8").splitlines()]
