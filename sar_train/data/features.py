"""Features of a dataset under a backbone, as training reads them.

`PhotoFeatures` makes them on demand: photos are decoded by a few threads, encoded in batches, and cached.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sar_infer.bundle.manifest import Preprocess
from sar_train.clip.backbone import Backbone
from sar_train.data.cache import FeatureCache, row_key, set_folder
from sar_train.data.dataset import Dataset, Photo, Split
from sar_train.data.progress import ProgressCallback, counter
from sar_train.data.splits import Shots, few_shot
from sar_train.data.views import pixels
from sar_train.errors import DataError

BATCH = 64
BATCH_CPU = 8
"""Views encoded at once; on a CPU few, since larger buffers go back to the system after every layer."""
AHEAD = 64
"""Views decoded before they are needed; bounds the memory."""


class Features(ABC):
    """Unit float32 features of a dataset's photos.

    Attributes:
        dataset: the photos with their classes and splits.
        backbone_name: of the backbone that made the features.
        weights_digest: of that backbone (`Backbone.weights_digest`).
        preprocess: how photos are prepared for it.
        provenance: licence, source and the like, as text by name.
    """

    dataset: Dataset
    backbone_name: str
    weights_digest: str
    preprocess: Preprocess
    provenance: Mapping[str, str]

    def labels(self, split: Split) -> Tensor:
        """Return (N,) int64 labels of all photos of a split."""
        return torch.tensor([photo.label for photo in self.dataset.photos(split)], dtype=torch.long)

    def draw(self, shots: int, seed: int) -> Shots:
        """Draw training and validation rows as CoOp does."""
        train, val = ([photo.label for photo in self.dataset.photos(split)] for split in ("train", "val"))
        return few_shot(train, val, shots, seed)

    @abstractmethod
    def plain(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) features of the plain views of some photos of a split, or of all for None.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """

    def views(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, V, D) features of some photos of a split, or of all for None; the plain view is the first.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        return self.plain(split, rows)[:, None]


class _Job(NamedTuple):
    """A photo, with the views to decode and the keys that their rows are cached under."""

    photo: Photo
    views: tuple[int, ...]
    keys: tuple[bytes, ...] = ()


class PhotoFeatures(Features):
    """Features of a dataset's photos; each view of each photo is encoded once."""

    def __init__(
        self,
        dataset: Dataset,
        backbone: Backbone,
        views: int = 1,
        seed: int = 1,
        cache_dir: Path | None = None,
        *,
        tell: ProgressCallback = lambda text: None,
    ) -> None:
        """Read the features in the cache; no photo is decoded yet.

        Args:
            dataset: the photos.
            backbone: encodes them with its image tower.
            views: V, for training photos: the plain one and V - 1 random ones. Others have the plain one.
            seed: of the random views.
            cache_dir: where features are kept between runs; None keeps them in memory.
            tell: gets a line now and then while photos are encoded.
        """
        self.dataset, self.provenance = dataset, {}
        self.backbone_name, self.weights_digest = backbone.name, backbone.weights_digest
        self.preprocess = backbone.preprocess
        self._backbone, self._views, self._seed, self._tell = backbone, views, seed, tell
        self._batch = BATCH_CPU if backbone.device.type == "cpu" else BATCH
        folder = set_folder(cache_dir, dataset.name, backbone) if cache_dir else None
        self._cache = FeatureCache(folder, backbone.embed_dim, tell)

    def plain(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, D) features of the plain views, as `Features.plain`."""
        return self._features(split, rows, 1)[:, 0]

    def views(self, split: Split, rows: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return (n, V, D) features; V is 1 except for training photos."""
        return self._features(split, rows, self._views if split == "train" else 1)

    def map_pixels(self, split: Split, rows: Sequence[int] | Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return (n, …) rows: ``encode`` of (N, 3, size, size) pixels of plain views, in batches, without the cache.

        Args:
            split: of the photos.
            rows: which of its photos.
            encode: gives one row for each input.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        jobs = [_Job(photo, (0,)) for photo in self._photos(split, rows)]
        encoded, done = torch.empty(0), 0
        for _, batch in self._batches(jobs, split):
            of_batch = encode(batch)
            if not done:
                encoded = torch.empty(len(jobs), *of_batch.shape[1:], dtype=of_batch.dtype)
            encoded[done : done + len(of_batch)] = of_batch
            done += len(of_batch)
        return encoded

    def crops(self, rows: Sequence[int] | Tensor, view: int) -> Tensor:
        """Return (n, 3, size, size) pixels of a random view of training photos, decoded anew.

        Args:
            rows: which of the training photos.
            view: the number of the view, from 1; any number of views can be had.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        jobs = [_Job(photo, (view,)) for photo in self._photos("train", rows)]
        return torch.from_numpy(np.concatenate([decoded for _, decoded in self._decoded(jobs)]))

    def _photos(self, split: Split, rows: Sequence[int] | Tensor | None) -> Sequence[Photo]:
        photos = self.dataset.photos(split)
        return photos if rows is None else [photos[int(row)] for row in rows]

    def _features(self, split: Split, rows: Sequence[int] | Tensor | None, views: int) -> Tensor:
        photos = self._photos(split, rows)
        keys = [self._keys(photo, views) for photo in photos]
        jobs: dict[bytes, _Job] = {}
        for photo, of_photo in zip(photos, keys, strict=True):
            missing = tuple(view for view in range(views) if of_photo[view] not in self._cache)
            if missing:
                jobs[of_photo[missing[0]]] = _Job(photo, missing, tuple(of_photo[view] for view in missing))
        try:
            for done, batch in self._batches(list(jobs.values()), split):
                self._cache.put([key for job in done for key in job.keys], self._backbone.encode_images(batch))
        finally:
            self._cache.flush()
        if not photos:
            return torch.empty(0, views, self._backbone.embed_dim)
        return torch.stack([self._cache[key] for of_photo in keys for key in of_photo]).view(len(photos), views, -1)

    def _keys(self, photo: Photo, views: int) -> list[bytes]:
        path = self.dataset.root / photo.path
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return [row_key(photo.path, stat, view, self._seed) for view in range(views)]

    def _batches(self, jobs: Sequence[_Job], split: Split) -> Iterator[tuple[list[_Job], Tensor]]:
        """Yield jobs with their pixels (N, 3, size, size) in batches to encode, and tell of the progress."""
        count = counter(self._tell, f"encoding {{}} {split} photos", len(jobs))
        waiting: list[_Job] = []
        decoded: list[npt.NDArray[np.float32]] = []
        for number, (job, views) in enumerate(self._decoded(jobs), 1):
            waiting.append(job)
            decoded.append(views)
            if sum(map(len, decoded)) >= self._batch or number == len(jobs):
                yield waiting, torch.from_numpy(np.concatenate(decoded))
                waiting, decoded = [], []
                count(number)

    def _decoded(self, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, npt.NDArray[np.float32]]]:
        """Yield jobs in order with their pixels (V, 3, size, size); a bounded number is decoded ahead."""
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        running: deque[tuple[_Job, Future[npt.NDArray[np.float32]]]] = deque()
        ahead = 0
        try:
            for job in jobs:
                path = self.dataset.root / job.photo.path
                task = pool.submit(pixels, path, self.preprocess, job.photo.path, job.views, self._seed)
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
