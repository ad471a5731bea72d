"""Image features made in advance: in memory, in the feature file, and as training reads them.

The feature file is one safetensors file. Tensors, for each of ``train``, ``val`` and ``test``: ``SPLIT.features``
(N, D) fp16 unit rows and ``SPLIT.labels`` (N,) int32. Metadata, all strings: ``format`` = ``sar-features``,
``schema_version``, ``dataset``, ``template``, ``class_names`` (JSON list), ``backbone``, ``weights_digest``,
``preprocess`` (JSON object), ``published_split`` (``true`` or ``false``) and ``provenance`` (JSON object of strings:
licence, source, command, …). No image can be recovered from it exactly, so it may travel where images may not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from sar_infer.bundle.manifest import Preprocess
from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import split_template
from sar_train.data.files import write_atomic
from sar_train.data.images import SPLITS, Split, SplitOrigin
from sar_train.data.shots import Shots, few_shot
from sar_train.errors import DataError

FORMAT = "sar-features"
SCHEMA_VERSION = 1
OUR_SPLIT = "our split"
"""Key of a feature file's provenance that says that its split was drawn here, not published."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of one split: (N, D) unit float32 rows, and (N,) int64 labels."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A `DataSource` that a feature file holds, checked for consistency when it is built; everything has one view.

    Attributes:
        name: of the dataset, for tables and records.
        template: hand-crafted prompt with ``{}``.
        class_names: C names.
        backbone: name of the backbone that made the features.
        weights_digest: of that backbone (`Backbone.weights_digest`).
        preprocess: how images were prepared.
        published_split: True if the splits are those that papers report on.
        train, val, test: the rows; ``val`` and ``test`` may be empty.
        provenance: licence, source and the like, as text by name.

    Raises:
        DataError: a bad template, shapes that disagree, a label out of range, a row that is not finite or all zero.
    """

    name: str
    template: str
    class_names: tuple[str, ...]
    backbone: str
    weights_digest: str
    preprocess: Preprocess
    published_split: bool
    train: Rows
    val: Rows
    test: Rows
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise DataError("no class names: expected at least one")
        if len(self.train.labels) == 0:
            raise DataError("no training rows: expected at least one")
        try:
            split_template(self.template)
        except ValueError as error:
            raise DataError(str(error)) from None
        size = self.train.features.shape[-1]
        for split in SPLITS:
            _check(split, self.rows(split), size, len(self.class_names))

    def rows(self, split: Split) -> Rows:
        """Return the rows of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def require(self, backbone: Backbone) -> None:
        """Make sure that these features come from a backbone.

        Raises:
            DataError: other weights (both digests are named) or another preprocessing.
        """
        made_with = f"features of {self.name} were made with {self.backbone}"
        if self.weights_digest != backbone.weights_digest:
            raise DataError(
                f"{made_with}, weights {self.weights_digest}; this is {backbone.name}, weights "
                f"{backbone.weights_digest}: use that backbone, or make the features again from the photos"
            )
        if self.preprocess != backbone.preprocess:
            raise DataError(
                f"{made_with} and photos prepared by {self.preprocess}; {backbone.name} expects "
                f"{backbone.preprocess}: make the features again from the photos"
            )

    @property
    def split_origin(self) -> SplitOrigin:
        """Return ``ours`` for splits drawn when the file was made, ``published`` for those of papers, or ``given``."""
        if OUR_SPLIT in self.provenance:
            return "ours"
        return "published" if self.published_split else "given"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warnings that go with a split that is not the published one."""
        return tuple(self.provenance.get(OUR_SPLIT, "").splitlines())

    def draw(self, shots: int, seed: int) -> Shots:
        """Draw training and validation rows as CoOp does."""
        return few_shot(self.train.labels.tolist(), self.val.labels.tolist(), shots, seed)

    def labels(self, split: Split) -> Tensor:
        """Return (N,) int64 labels of all rows of a split."""
        return self.rows(split).labels

    def paths(self, split: Split) -> None:  # noqa: ARG002
        """Return None: there are no images."""
        return

    def features(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, 1, D) unit float32 rows."""
        return self.plain(split, indices)[:, None]

    def plain(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) unit float32 rows."""
        rows = self.rows(split).features
        return rows if indices is None else rows[indices if isinstance(indices, Tensor) else list(indices)]


def _check(split: Split, rows: Rows, size: int, classes: int) -> None:
    features, labels = rows.features, rows.labels
    if features.ndim != 2 or features.shape != (len(labels), size) or size < 1:
        raise DataError(f"{split}: expected ({len(labels)}, {size}) features, got {tuple(features.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{split}: expected labels 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    norms = features.norm(dim=-1)
    wrong = (~((norms - 1).abs() < 1e-3)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{split}: expected finite rows of unit length, row {row} has length {float(norms[row]):.4g}")


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
        "dataset": features.name,
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
        texts = {key: metadata[key] for key in ("dataset", "template", "backbone", "weights_digest")}
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
        name=texts.pop("dataset"),
        **texts,
        class_names=tuple(names),
        preprocess=spec,
        published_split=published,
        train=train,
        val=val,
        test=test,
        provenance=provenance,
    )
