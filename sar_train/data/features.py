"""The feature file: image features of a dataset's three splits, with labels, names and where they come from.

One safetensors file. Tensors, for each of ``train``, ``val`` and ``test``: ``SPLIT.features`` (N, D) fp16 unit rows and
``SPLIT.labels`` (N,) int32. Metadata, all strings: ``format`` = ``sar-features``, ``schema_version``, ``dataset``,
``template``, ``class_names`` (JSON list), ``backbone``, ``weights_digest``, ``preprocess`` (JSON object),
``published_split`` (``true`` or ``false``) and ``provenance`` (JSON object of strings: licence, source, command, …).
No photo can be had back from it, so it may travel where photos may not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn.functional import normalize

from sar_infer.artefact.manifest import Preprocess
from sar_train.data.feature_set import FeatureSet, Rows
from sar_train.data.files import write_atomic
from sar_train.data.photos import SPLITS, Split
from sar_train.errors import DataError

__all__ = ["FORMAT", "SCHEMA_VERSION", "FeatureSet", "Rows", "load_features", "save_features"]

FORMAT = "sar-features"
SCHEMA_VERSION = 1


def save_features(features: FeatureSet, path: Path) -> None:
    """Write a feature file, rows rounded to fp16; an older file stays until the new one is complete.

    Raises:
        DataError: it cannot be written.
    """
    tensors = {}
    for split in SPLITS:
        rows = features.rows(split)
        tensors[f"{split}.features"] = rows.features.to("cpu", torch.float16).contiguous()
        tensors[f"{split}.labels"] = rows.labels.to("cpu", torch.int32).contiguous()
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "dataset": features.dataset,
        "template": features.template,
        "class_names": json.dumps(features.class_names, ensure_ascii=False),
        "backbone": features.backbone,
        "weights_digest": features.weights_digest,
        "preprocess": json.dumps(dataclasses.asdict(features.preprocess)),
        "published_split": json.dumps(features.published_split),
        "provenance": json.dumps(dict(features.provenance), ensure_ascii=False),
    }
    write_atomic(path, save(tensors, metadata))


def load_features(path: Path) -> FeatureSet:
    """Read a feature file; rows become unit float32.

    Raises:
        DataError: not there, not a feature file, of a later schema, damaged or inconsistent.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such feature file")
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            _check_header(metadata, set(stored.keys()))
            rows = [_read_rows(stored, split) for split in SPLITS]
        return _build(metadata, *rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a safetensors file, or a truncated one ({error})") from None


def _check_header(metadata: Mapping[str, str], tensors: set[str]) -> None:
    if metadata.get("format") != FORMAT:
        raise DataError(f"expected a feature file (format {FORMAT}), got format {metadata.get('format')!r}")
    version = metadata.get("schema_version")
    if version != str(SCHEMA_VERSION):
        raise DataError(f"expected schema_version {SCHEMA_VERSION}, got {version!r:.20}: upgrade sar-clip")
    expected = {f"{split}.{part}" for split in SPLITS for part in ("features", "labels")}
    if tensors != expected:
        wrong = ", ".join(sorted(tensors ^ expected))
        raise DataError(f"expected the tensors {', '.join(sorted(expected))}; missing or unknown: {wrong}")


def _read_rows(stored: Any, split: Split) -> Rows:
    features, labels = stored.get_tensor(f"{split}.features"), stored.get_tensor(f"{split}.labels")
    if features.ndim != 2 or not features.is_floating_point():
        raise DataError(f"{split}.features: expected (N, D) floats, got {tuple(features.shape)} {features.dtype}")
    if labels.ndim != 1 or labels.dtype not in (torch.int32, torch.int64):
        raise DataError(f"{split}.labels: expected (N,) integers, got {tuple(labels.shape)} {labels.dtype}")
    return Rows(normalize(features.float(), dim=-1), labels.long())


def _build(metadata: Mapping[str, str], train: Rows, val: Rows, test: Rows) -> FeatureSet:
    try:
        names, provenance = json.loads(metadata["class_names"]), json.loads(metadata["provenance"])
        preprocess, published = json.loads(metadata["preprocess"]), json.loads(metadata["published_split"])
        texts = {name: metadata[name] for name in ("dataset", "template", "backbone", "weights_digest")}
        spec = Preprocess(**preprocess | {name: tuple(map(float, preprocess[name])) for name in ("mean", "std")})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"metadata is missing or damaged ({type(error).__name__}: {error})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("metadata class_names: expected a list of texts")
    if not isinstance(provenance, dict) or not all(isinstance(text, str) for text in provenance.values()):
        raise DataError("metadata provenance: expected an object of texts")
    if not isinstance(published, bool):
        raise DataError(f"metadata published_split: expected true or false, got {published!r:.20}")
    return FeatureSet(
        **texts,
        class_names=tuple(names),
        preprocess=spec,
        published_split=published,
        train=train,
        val=val,
        test=test,
        provenance=provenance,
    )
