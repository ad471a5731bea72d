"""Settings of a run that takes a moment: blobs around the tiny backbone."""

from __future__ import annotations

from pathlib import Path

from support.problems import feature_set
from support.tiny import VIT, register

from sar_train.clip import backbone
from sar_train.config.run import RunConfig
from sar_train.data.feature_file import save_features


def write_blobs(folder: Path, *more: str) -> RunConfig:
    """Settings of a run of a second on a feature file that is made in the folder; ``more`` are novel names."""
    register()
    features, names = folder / "blobs.safetensors", folder / "novel.txt"
    save_features(feature_set(), features)
    names.write_text("\n".join(["fox", "boat", "lamp", "grey stone", "bird", *more]))
    return RunConfig(
        data=str(features),
        backbone=VIT,
        pretrained=backbone.RANDOM,
        novel=str(names),
        shots=4,
        epochs=2,
        learning_rate=0.005,
        batch_size=8,
        protocol="base-to-new",
        prompt="learned",
        sections={"sar": {"subset": 4}},
    )
