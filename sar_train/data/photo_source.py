"""Image features made from photos as they are asked for: decoded by a few threads, encoded in batches, cached."""

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
from sar_train.data.counted import ProgressCallback, counter
from sar_train.data.photos import Photo, PhotoDataset, Split, SplitOrigin
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
class _Job:
    """A photo with the views that are not cached yet and their keys."""

    photo: Photo
    views: tuple[int, ...]
    keys: tuple[bytes, ...]


class PhotoSource:
    """A `Source` of photos; each view of each photo is encoded once."""

    def __init__(
        self,
        dataset: PhotoDataset,
        backbone: Backbone,
        views: int = 1,
        seed: int = 1,
        cache_dir: Path | None = None,
        *,
        tell: ProgressCallback = lambda text: None,
    ) -> None:
        """Nothing is decoded yet.

        Args:
            dataset: the photos.
            backbone: whose image tower encodes them.
            views: V, for training photos: the plain one and V - 1 random ones. Others have the plain one.
            seed: of the random views.
            cache_dir: where features and draws are kept between runs; None keeps them in memory.
            tell: gets a line now and then while photos are encoded.
        """
        self.dataset, self.backbone, self.views, self.seed = dataset, backbone, views, seed
        self._tell, self._cache_dir = tell, cache_dir
        self._batch = BATCH_CPU if backbone.device.type == "cpu" else BATCH
        self._draws: dict[tuple[int, int], Shots] = {}
        folder = set_folder(cache_dir, dataset.name, backbone) if cache_dir else None
        self._cache = FeatureCache(folder, backbone.embed_dim)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, by label."""
        return self.dataset.class_names

    @property
    def template(self) -> str:
        """The dataset's hand-crafted template."""
        return self.dataset.template

    @property
    def published_split(self) -> bool:
        """Whether the splits are those that papers report on."""
        return self.dataset.published_split

    @property
    def split_origin(self) -> SplitOrigin:
        """Whether the splits are those of papers, came with the photos, or were drawn here."""
        return self.dataset.split_origin

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        return self.dataset.warnings

    def draw(self, shots: int, seed: int) -> Shots:
        """CoOp's draw of training and validation rows, the one of an earlier run where the photos are the same."""
        if (shots, seed) not in self._draws:
            self._draws[shots, seed] = draw_shots(self.dataset, shots, seed, self._cache_dir)
        return self._draws[shots, seed]

    def labels(self, split: Split) -> Tensor:
        """(N,) int64 labels of all photos of a split."""
        return torch.tensor([photo.label for photo in self.dataset.photos(split)], dtype=torch.long)

    def paths(self, split: Split) -> tuple[str, ...]:
        """The photos' relative paths."""
        return tuple(self.dataset.relative(photo) for photo in self.dataset.photos(split))

    def features(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, V, D) unit float32 rows of the photos asked for, all of them for None; V is 1 but for training photos.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        return self._rows(split, indices, self.views if split == "train" else 1)

    def plain(self, split: Split, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """(n, D): the plain views alone, of training photos too.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        return self._rows(split, indices, 1)[:, 0]

    def map_pixels(self, split: Split, indices: Sequence[int] | Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(n, …): ``encode`` of (N, 3, size, size) pixels of plain views, in batches, without the cache.

        Args:
            split: of the photos.
            indices: which of its photos.
            encode: gives one row for each input.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        photos = self.dataset.photos(split)
        jobs = [_Job(photos[int(i)], (0,), ()) for i in indices]
        made, done = torch.empty(0), 0
        waiting: list[npt.NDArray[np.float32]] = []
        count = self._counter(split, len(jobs))
        for place, (_, decoded) in enumerate(self._decoded(jobs), 1):
            waiting.append(decoded)
            if len(waiting) >= self._batch or place == len(jobs):
                rows = encode(torch.from_numpy(np.concatenate(waiting)))
                if not done:
                    made = torch.empty(len(jobs), *rows.shape[1:], dtype=rows.dtype)
                made[done : done + len(rows)] = rows
                done += len(rows)
                waiting.clear()
                count(place)
        return made

    def crops(self, indices: Sequence[int] | Tensor, view: int) -> Tensor:
        """Return (n, 3, size, size) pixels of a random view of training photos, decoded anew.

        Args:
            indices: which of the training photos.
            view: the number of the view, from 1; any number of views can be had.

        Raises:
            DataError: a photo cannot be read; the message names it.
        """
        photos = self.dataset.photos("train")
        jobs = [_Job(photos[int(i)], (view,), ()) for i in indices]
        return torch.from_numpy(np.concatenate([decoded for _, decoded in self._decoded(jobs)]))

    def _counter(self, split: Split, photos: int) -> Callable[[int], None]:
        return counter(self._tell, f"encoding {{}} {split} photos", photos)

    def _rows(self, split: Split, indices: Sequence[int] | Tensor | None, views: int) -> Tensor:
        photos = self.dataset.photos(split)
        chosen = photos if indices is None else [photos[int(i)] for i in indices]
        keys = [self._keys(photo, views) for photo in chosen]
        jobs: dict[bytes, _Job] = {}
        for photo, of_photo in zip(chosen, keys, strict=True):
            missing = tuple(view for view in range(views) if of_photo[view] not in self._cache)
            if missing:
                jobs[of_photo[missing[0]]] = _Job(photo, missing, tuple(of_photo[view] for view in missing))
        self._encode(list(jobs.values()), split)
        rows = [self._cache[key] for of_photo in keys for key in of_photo]
        return torch.stack(rows).unflatten(0, (len(chosen), views)) if rows else self._nothing(views)

    def _nothing(self, views: int) -> Tensor:
        return torch.empty(0, views, self.backbone.embed_dim)

    def _keys(self, photo: Photo, views: int) -> list[bytes]:
        try:
            stat = photo.path.stat()
        except OSError as error:
            raise DataError(f"{photo.path}: cannot be read ({error.strerror})") from None
        return [row_key(self.dataset.relative(photo), stat, view, self.seed) for view in range(views)]

    def _encode(self, jobs: Sequence[_Job], split: Split) -> None:
        count = self._counter(split, len(jobs))
        keys: list[bytes] = []
        waiting: list[npt.NDArray[np.float32]] = []
        try:
            for place, (job, decoded) in enumerate(self._decoded(jobs), 1):
                keys += job.keys
                waiting.append(decoded)
                if len(keys) >= self._batch or place == len(jobs):
                    self._encode_batch(keys, waiting)
                    count(place)
        finally:
            self._cache.flush()

    def _encode_batch(self, keys: list[bytes], waiting: list[npt.NDArray[np.float32]]) -> None:
        """Encode what waits, and empty both lists."""
        self._cache.put(keys.copy(), self.backbone.encode_images(torch.from_numpy(np.concatenate(waiting))))
        keys.clear()
        waiting.clear()

    def _decoded(self, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, npt.NDArray[np.float32]]]:
        """Jobs in order with their pixels (V, 3, size, size), a bounded number decoded ahead."""
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        running: deque[tuple[_Job, Future[npt.NDArray[np.float32]]]] = deque()
        ahead = 0
        try:
            for job in jobs:
                name = self.dataset.relative(job.photo)
                task = pool.submit(pixels, job.photo.path, self.backbone.preprocess, name, job.views, self.seed)
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
