"""The other side: open_clip in torch with its own evaluation transform, its classifier made before the clock starts.

The classifier is the matrix of the bundle's bank, so that both sides choose among the same classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import get_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.throughput.ours import TOP_K
from benchmarks.throughput.settings import Setting, batched
from sar_infer.bundle.bundle import open_bundle
from sar_train.clip import backbone

_ENDLESS = 10**9


class Photos(Dataset[torch.Tensor]):
    """The photos over and over, decoded and transformed where they are asked for."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index % len(self.paths)]))  # type: ignore[no-any-return]


class OpenClip:
    """A model, its transform and a classifier.

    Args:
        bundle: Folder whose classes are chosen from.
        name: open_clip's model name.
        pretrained: As ``sar_train.clip.backbone.load`` takes it.
        threads: torch's.
        channels_last: Memory format of weights and pixels.
    """

    def __init__(self, bundle: Path, name: str, pretrained: str | None, threads: int, channels_last: bool) -> None:
        torch.set_num_threads(threads)
        model: Any = backbone.load(name, pretrained).model
        self.transform = image_transform_v2(PreprocessCfg(**get_model_preprocess_cfg(model)), is_train=False)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.format)
        manifest, bank = (opened := open_bundle(bundle)).manifest, opened.bank
        self.names = tuple(bank.names)
        self.classifier = torch.from_numpy(np.array(bank.embeddings)).T * manifest.logit_scale

    def labels(self, paths: Iterable[Path], setting: Setting) -> Iterator[str]:
        """The best class of each photo, in order; with a loader, over and over."""
        if setting.mode == "loader":
            photos = Photos(list(paths), self.transform)
            loader = DataLoader(photos, setting.batch, num_workers=setting.workers)
            for pixels in loader:
                yield from self.rank(self.encode(pixels))
        else:
            for batch in batched(paths, setting.batch):
                yield from self.rank(self.encode(torch.stack([self.decode(path) for path in batch])))

    def decode(self, path: Path) -> torch.Tensor:
        """Pixels (3, size, size)."""
        return self.transform(Image.open(path))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        """Unit rows (N, D)."""
        batch = pixels if isinstance(pixels, torch.Tensor) else torch.stack(pixels)
        rows: torch.Tensor = self.model.encode_image(batch.contiguous(memory_format=self.format), normalize=True)
        return rows

    @torch.inference_mode()
    def rank(self, rows: torch.Tensor) -> list[str]:
        """The best class of each row; the others and all scores are computed as our side does."""
        scores = (rows @ self.classifier).softmax(dim=-1)
        best = scores.topk(min(TOP_K, len(self.names))).indices[:, 0]
        return [self.names[column] for column in best.tolist()]
