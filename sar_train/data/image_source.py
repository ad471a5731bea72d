"""Image features made on demand: images are decoded by a few threads, encoded in batches, and the rows are cached."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.data.cache import FeatureCache, row_key, set_folder
from sar_train.data.images import ImageDataset, LabelledImage, Split
from sar_train.data.progress import ProgressCallback, counter
from sar_train.data.shots import Shots
from sar_train.data.split_cache import draw_shots
from sar_train.data.views import pixels
from sar_train.errors import DataError

BATCH = 64
BATCH_CPU = 8
"""Views encoded at once; on a CPU few, since larger buffers go back to the system after every layer."""
AHEAD = 64
"""Views decoded before they are needed; bounds the memory."""


@dataclass(frozen=True)
class _Pending:
    """An image with the views that are not cached yet and their keys."""

    image: LabelledImage
    views: tuple[int, ...]
    keys: tuple[bytes, ...]


class ImageDataSource:
    """A `DataSource` of images; each view of each image is encoded once.

    ``name``, ``class_names``, ``template``, ``published_split``, ``split_origin`` and ``warnings`` are the dataset's.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        backbone: Backbone,
        views: int = 1,
        seed: int = 1,
        cache_dir: Path | None = None,
        *,
        tell: ProgressCallback = lambda text: None,
    ) -> None:
        """Read the features in the cache; no image is decoded yet.

        Args:
            dataset: the images.
            backbone: encodes them with its image tower.
            views: V, for training images: the plain one and V - 1 random ones. Others have the plain one.
            seed: of the random views.
            cache_dir: where features and draws are kept between runs; None keeps them in memory.
            tell: gets a line now and then while images are encoded.
        """
        self.dataset, self.backbone, self.views, self.seed = dataset, backbone, views, seed
        self.name, self.class_names, self.template = dataset.name, dataset.class_names, dataset.template
        self.published_split, self.split_origin = dataset.published_split, dataset.split_origin
        self.warnings = dataset.warnings
        self._tell, self._cache_dir = tell, cache_dir
        self._batch = BATCH_CPU if backbone.device.type == "cpu" else BATCH
        self._draws: dict[tuple[int, int], Shots] = {}
        folder = set_folder(cache_dir, dataset.name, backbone) if cache_dir else None
        self._cache = FeatureCache(folder, backbone.embed_dim)

    def draw(self, shots: int, seed: int) -> Shots:
        """Draw training and validation rows as CoOp does; the draw of an earlier run holds for the same images."""
        if (shots, seed) not in self._draws:
            self._draws[shots, seed] = draw_shots(self.dataset, shots, seed, self._cache_dir)
        return self._draws[shots, seed]

    def labels(self, split: Split) -> Tensor:
        """Return (N,) int64 labels of all images of a split."""
        return torch.tensor([image.label for image in self.dataset.images(split)], dtype=torch.long)

    def paths(self, split: Split) -> tuple[str, ...]:
        """Return the images' relative paths."""
        return tuple(self.dataset.relative(image) for image in self.dataset.images(split))

    def features(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, V, D) unit float32 rows of some images, or of all for None; V is 1 except for training images.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        return self._rows(split, indices, self.views if split == "train" else 1)

    def plain(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) unit float32 rows of the plain views, of training images too.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        return self._rows(split, indices, 1)[:, 0]

    def map_pixels(self, split: Split, indices: Sequence[int] | Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return (n, …) rows: ``encode`` of (N, 3, size, size) pixels of plain views, in batches, without the cache.

        Args:
            split: of the images.
            indices: which of its images.
            encode: gives one row for each input.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        images = self.dataset.images(split)
        jobs = [_Pending(images[int(i)], (0,), ()) for i in indices]
        made, done = torch.empty(0), 0
        for _, batch in self._batches(jobs, split):
            rows = encode(batch)
            if not done:
                made = torch.empty(len(jobs), *rows.shape[1:], dtype=rows.dtype)
            made[done : done + len(rows)] = rows
            done += len(rows)
        return made

    def crops(self, indices: Sequence[int] | Tensor, view: int) -> Tensor:
        """Return (n, 3, size, size) pixels of a random view of training images, decoded anew.

        Args:
            indices: which of the training images.
            view: the number of the view, from 1; any number of views can be had.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        images = self.dataset.images("train")
        jobs = [_Pending(images[int(i)], (view,), ()) for i in indices]
        return torch.from_numpy(np.concatenate([decoded for _, decoded in self._decoded(jobs)]))

    def _rows(self, split: Split, indices: Sequence[int] | Tensor | None, views: int) -> Tensor:
        images = self.dataset.images(split)
        chosen = images if indices is None else [images[int(i)] for i in indices]
        keys = [self._keys(image, views) for image in chosen]
        jobs: dict[bytes, _Pending] = {}
        for image, of_image in zip(chosen, keys, strict=True):
            missing = tuple(view for view in range(views) if of_image[view] not in self._cache)
            if missing:
                jobs[of_image[missing[0]]] = _Pending(image, missing, tuple(of_image[view] for view in missing))
        try:
            for encoded, batch in self._batches(list(jobs.values()), split):
                self._cache.put([key for job in encoded for key in job.keys], self.backbone.encode_images(batch))
        finally:
            self._cache.flush()
        rows = [self._cache[key] for of_image in keys for key in of_image]
        return (
            torch.stack(rows).view(len(chosen), views, -1) if rows else torch.empty(0, views, self.backbone.embed_dim)
        )

    def _keys(self, image: LabelledImage, views: int) -> list[bytes]:
        try:
            stat = image.path.stat()
        except OSError as error:
            raise DataError(f"{image.path}: cannot be read ({error.strerror})") from None
        return [row_key(self.dataset.relative(image), stat, view, self.seed) for view in range(views)]

    def _batches(self, jobs: Sequence[_Pending], split: Split) -> Iterator[tuple[list[_Pending], Tensor]]:
        """Yield jobs with their pixels (N, 3, size, size) in batches to encode, and tell of the progress."""
        count = counter(self._tell, f"encoding {{}} {split} photos", len(jobs))
        waiting: list[_Pending] = []
        decoded: list[npt.NDArray[np.float32]] = []
        for place, (job, views) in enumerate(self._decoded(jobs), 1):
            waiting.append(job)
            decoded.append(views)
            if sum(map(len, decoded)) >= self._batch or place == len(jobs):
                yield waiting, torch.from_numpy(np.concatenate(decoded))
                waiting, decoded = [], []
                count(place)

    def _decoded(self, jobs: Sequence[_Pending]) -> Iterator[tuple[_Pending, npt.NDArray[np.float32]]]:
        """Yield jobs in order with their pixels (V, 3, size, size); a bounded number is decoded ahead."""
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        running: deque[tuple[_Pending, Future[npt.NDArray[np.float32]]]] = deque()
        ahead = 0
        try:
            for job in jobs:
                name = self.dataset.relative(job.image)
                task = pool.submit(pixels, job.image.path, self.backbone.preprocess, name, job.views, self.seed)
                running.append((job, task))
                ahead += len(job.views)
                while ahead >= AHEAD:
                    first, done = running.popleft()
                    ahead -= len(first.views)
                    yield first, done.result()
            for first, done in running:
                yield first, done.result()
        finally:
            pool.shutdown(cancel_futures=True)
