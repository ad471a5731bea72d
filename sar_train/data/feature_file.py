"""Features that were made in advance: in memory, and in the feature file.

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
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from sar_infer.bundle.manifest import Preprocess
from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import split_template
from sar_train.data.dataset import DEMO, SPLITS, Dataset, Photo, Split
from sar_train.data.features import Features
from sar_train.data.files import write_atomic
from sar_train.errors import DataError

FORMAT = "sar-features"
OUR_SPLIT = "our split"
"""Key of a feature file's provenance that says that its split was drawn here, not published."""
DEMO_FILE = Path(__file__).parents[1] / "assets" / "caltech101_sar-mini.safetensors"
"""The feature file that ships."""


@dataclass(frozen=True, eq=False)
class StoredFeatures(Features):
    """Features with one view of each photo, checked for consistency when they are built.

    Attributes:
        dataset: class names, and a photo without a path for each row (`labelled`).
        backbone_name, weights_digest, preprocess, provenance: as for all features.
        rows: (N, D) unit float32 rows of each split; ``val`` and ``test`` may be left out.

    Raises:
        DataError: a bad template, shapes that disagree, a label out of range, a row that is not finite or all zero.
    """

    dataset: Dataset
    backbone_name: str
    weights_digest: str
    preprocess: Preprocess
    rows: Mapping[Split, Tensor]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.dataset.class_names:
            raise DataError("no class names: expected at least one")
        if not self.dataset.photos("train"):
            raise DataError("no training rows: expected at least one")
        try:
            split_template(self.dataset.template)
        except ValueError as error:
            raise DataError(str(error)) from None
        size, classes = self.rows["train"].shape[-1], len(self.dataset.class_names)
        for split in SPLITS:
            features, labels = self.plain(split), self.labels(split)
            if features.shape != (len(labels), size) or size < 1:
                raise DataError(f"{split}: expected ({len(labels)}, {size}) features, got {tuple(features.shape)}")
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
                raise DataError(
                    f"{split}: expected labels 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}"
                )
            lengths = features.norm(dim=-1)
            if len(bad := (~((lengths - 1).abs() < 1e-3)).nonzero()):
                row = int(bad[0])
                raise DataError(f"{split}: expected unit rows, row {row} has length {float(lengths[row]):.4g}")

    def require(self, backbone: Backbone) -> None:
        """Make sure that these features come from a backbone.

        Raises:
            DataError: other weights (both digests are named) or another preprocessing.
        """
        made_with = f"features of {self.dataset.name} were made with {self.backbone_name}"
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

    def plain(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) rows of a split, all for None."""
        features = self.rows.get(split, self.rows["train"][:0])
        return features if rows is None else features[rows if isinstance(rows, Tensor) else list(rows)]


def labelled(labels: Mapping[Split, Tensor]) -> dict[Split, tuple[Photo, ...]]:
    """Return a photo without a path for each of (N,) labels of each split."""
    return {split: tuple(Photo("", label) for label in of_split.tolist()) for split, of_split in labels.items()}


def save_features(features: Features, path: Path, provenance: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write the plain views of features to a file, rows rounded to fp16; an older file stays until it is complete.

    Args:
        features: of photos, which are encoded where needed, or from another file.
        path: of the feature file.
        provenance: licence, source and the like, as text by name; what the features bring with them goes first.

    Raises:
        DataError: the file cannot be written, or a photo cannot be read.
    """
    dataset = features.dataset
    tensors = {}
    for split in SPLITS:
        tensors[f"{split}.features"] = features.plain(split).to("cpu", torch.float16).contiguous()
        tensors[f"{split}.labels"] = features.labels(split).to("cpu", torch.int32).contiguous()
    is_ours = dataset.published_split and dataset.split_origin == "ours"
    texts = {**provenance, **features.provenance} | ({OUR_SPLIT: "\n".join(dataset.warnings)} if is_ours else {})
    metadata = {
        "format": FORMAT,
        "schema_version": "1",
        "dataset": dataset.name,
        "template": dataset.template,
        "class_names": json.dumps(dataset.class_names, ensure_ascii=False),
        "backbone": features.backbone_name,
        "weights_digest": features.weights_digest,
        "preprocess": json.dumps(dataclasses.asdict(features.preprocess)),
        "published_split": json.dumps(dataset.published_split),
        "provenance": json.dumps(texts, ensure_ascii=False),
    }
    write_atomic(path, save(tensors, metadata))


def load_features(path: Path | str) -> StoredFeatures:
    """Read a feature file; rows become unit float32.

    Args:
        path: of the file, or ``demo`` for the one that ships.

    Raises:
        DataError: not there, not a feature file, of a later schema, damaged or inconsistent.
    """
    path = DEMO_FILE if str(path) == DEMO else Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such feature file")
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a safetensors file, or one that is truncated or incomplete ({error})") from None
    if (metadata.get("format"), metadata.get("schema_version")) != (FORMAT, "1"):
        got = f"{metadata.get('format')!r:.40}, schema_version {metadata.get('schema_version')!r:.20}"
        raise DataError(f"{path}: expected a feature file (format '{FORMAT}', schema_version '1'), got {got}")
    try:
        names, provenance, preprocess, published = (
            json.loads(metadata[key]) for key in ("class_names", "provenance", "preprocess", "published_split")
        )
        if not isinstance(names, list):
            raise DataError(f"class_names: expected a list, got {names!r:.40}")
        labels = {split: tensors[f"{split}.labels"] for split in SPLITS}
        for split, of_split in labels.items():
            if of_split.ndim != 1 or of_split.is_floating_point():
                raise DataError(f"{split}.labels: expected (N,) integers, got {tuple(of_split.shape)} {of_split.dtype}")
        dataset = Dataset(
            metadata["dataset"],
            tuple(str(name) for name in names),
            splits=labelled(labels),
            template=metadata["template"],
            published_split=bool(published),
            split_origin="ours" if OUR_SPLIT in provenance else "published" if published else "given",
            warnings=tuple(provenance.get(OUR_SPLIT, "").splitlines()),
        )
        colours = {name: tuple(map(float, preprocess[name])) for name in ("mean", "std")}
        return StoredFeatures(
            dataset,
            metadata["backbone"],
            metadata["weights_digest"],
            Preprocess(**preprocess | colours),
            {split: normalize(tensors[f"{split}.features"].float(), dim=-1) for split in SPLITS},
            provenance,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: metadata is missing or damaged ({type(error).__name__}: {error})") from None
