"""The photos of a heap, and their embeddings as they come: in the background, in random order, each file once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import photo_cache
from sar_infer.errors import InputError, SarInferError, raised_as
from sar_infer.images.formats import suffix_of
from sar_infer.images.inputs import LISTS, expand, kind_of, list_rows

Photos = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A folder, a list, or paths."""
LEAST = 20
"""Photos of a heap that has a held-out part."""
_SHARE, _MOST = 0.25, 500
"""Held-out share of a heap, and held-out photos at most."""


def listed(photos: Photos) -> tuple[list[str], dict[str, str]]:
    """Return the paths of the photos, and the classes that a CSV list has for some of them.

    Raises:
        InputError: There is no photo, or a list cannot be read.
    """
    if not isinstance(photos, str | os.PathLike):
        paths = [os.fspath(photo) for photo in photos]
        if not paths:
            raise InputError("no photo: expected a folder, a list or paths of photos")
        return paths, {}
    path = os.fspath(photos)
    if kind_of(path) == "file" and suffix_of(path) in LISTS:
        with raised_as(InputError, f"{path}: cannot be read", OSError), Path(path).open("rb") as stream:
            rows = [(photo, name) for _, name, photo in list_rows(stream, path) if photo]
        return [photo for photo, _ in rows], {photo: name for photo, name in rows if name}
    return expand([path]), {}


class Heap:
    """Photos with their embeddings; photos of the same pixels are one photo. Its owner holds ``changed`` to read it.

    Attributes:
        paths: The photos as they were named, once each.
        names: Class of each photo that its list has a class for, by path.
        changed: Is notified after each embedded photo.
        digests: Digests of the pixels of the embedded photos, in the order of their numbers.
        files: Paths of each of these, the first first.
        numbers: The number of each embedded photo by its path.
        unreadable: Reason by path of each photo that cannot be read.
        failure: What ended the embedding, if it did not end by itself.

    Args:
        photos: The photos.
        classifier: Embeds them.
        cache: Folder of embeddings; None stores none.
    """

    def __init__(self, photos: Photos, classifier: Classifier, cache: Path | None) -> None:
        paths, self.names = listed(photos)
        self.paths = tuple(dict.fromkeys(paths))
        self.changed = threading.Condition(threading.RLock())
        self.digests: list[bytes] = []
        self.files: list[list[str]] = []
        self.numbers: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.failure: SarInferError | None = None
        self._rows = np.empty((len(self.paths), classifier.bundle.manifest.embed_dim), np.float32)
        self._by_digest: dict[bytes, int] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._embed, args=(classifier, cache), name="embedding", daemon=True)

    def start(self) -> None:
        """Begin to embed the photos."""
        self._thread.start()

    @property
    def rows(self) -> Floats:
        """Return the unit rows (N, D) of the embedded photos."""
        return self._rows[: len(self.digests)]

    @property
    def done(self) -> int:
        """Return how many photos were embedded or cannot be read."""
        return len(self.numbers) + len(self.unreadable)

    @property
    def ended(self) -> bool:
        """Return whether no further photo will be embedded."""
        return self.failure is not None or self.done == len(self.paths)

    def number_of(self, digest: bytes) -> int | None:
        """Return the number of the photo with these pixels; None if it is not embedded, or not of the heap."""
        return self._by_digest.get(digest)

    def close(self) -> None:
        """Stop embedding, and wait until what is embedded is stored."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()

    def _embed(self, classifier: Classifier, cache: Path | None) -> None:
        # in random order: what is embedded first is a random part of the heap
        order = sorted(self.paths, key=lambda path: hashlib.sha256(os.fsencode(path)).digest())

        def paths() -> Iterator[str]:
            for path in order:
                if self._stopping:
                    return
                yield path

        def skipped(path: str, reason: SarInferError) -> None:
            with self.changed:
                self.unreadable[path] = str(reason)
                self.changed.notify_all()

        try:
            with photo_cache.stored(cache):
                for path, digest, row in classifier.each_photo(paths(), skipped=skipped):
                    self._add(path, digest, row)
        except SarInferError as error:
            with self.changed:
                self.failure = error
                self.changed.notify_all()

    def _add(self, path: str, digest: bytes, row: Floats) -> None:
        with self.changed:
            number = self._by_digest.setdefault(digest, len(self.digests))
            if number == len(self.digests):
                self._rows[number] = row
                self.files.append([])
                self.digests.append(digest)
            self.files[number].append(path)
            self.numbers[path] = number
            self.changed.notify_all()


def held_out(digest: bytes, share: float) -> float | None:
    """Return the place of a photo among the held-out ones, in random order; None if it is not held out.

    The digest decides, so that the part is fixed whatever else is in the heap.
    """
    draw = int.from_bytes(hashlib.sha256(b"held out" + digest).digest()[:8]) / 2**64
    return draw if draw < share else None


def held_out_share(photos: int) -> float:
    """Return the share of a heap that is held out: none of few photos."""
    return 0.0 if photos < LEAST else min(_SHARE, _MOST / photos)
