"""Draws and splits made here, kept as JSON with relative paths, so that an experiment can be repeated.

They lie in ``CACHE/splits/DATASET-DIGEST/``. The digest covers every image and class that was drawn from, so a file can
never be read for other images; when the images of the same folder have changed, the new draw is announced. A damaged
file is replaced, with a warning. Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_train.data.files import write_atomic
from sar_train.data.images import SPLITS, ImageDataset
from sar_train.data.shots import Shots, few_shot
from sar_train.errors import DataError

VERSION = 1
FOLDER = "splits"
_LOG = logging.getLogger(__name__)


class SplitCache:
    """The files of one listing of images."""

    def __init__(self, cache_dir: Path | None, name: str, root: Path, listing: Sequence[str]) -> None:
        """Compute the digests; nothing is read yet.

        Args:
            cache_dir: None keeps nothing.
            name: of the dataset.
            root: the folder of the images; only a digest of it is kept, to recognise it when its images change.
            listing: one text for each image, all that a draw depends on; the path comes first, a NUL after it.
        """
        self._listing, self._name = listing, name
        self._digest = digest("\n".join(listing))
        self._place = digest(root.resolve().as_posix())[:16]
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:60]
        self._folder = cache_dir / FOLDER / f"{stem}-{self._digest[:16]}" if cache_dir else None

    def split(self, file: str, draw: Callable[[], Mapping[str, Sequence[str]]]) -> Mapping[str, Sequence[str]]:
        """Return the kept paths by split, else draw and keep them; together they are the listing, each path once."""
        expected = Counter(text.split("\0", 1)[0] for text in self._listing)

        def fits(parts: Mapping[str, Sequence[str]]) -> bool:
            return Counter(path for split in SPLITS for path in parts[split]) == expected

        return self.get(file, SPLITS, fits, draw)

    def get(
        self,
        file: str,
        parts: Sequence[str],
        fits: Callable[[Mapping[str, Sequence[str]]], bool],
        draw: Callable[[], Mapping[str, Sequence[str]]],
        *,
        announce: bool = True,
    ) -> Mapping[str, Sequence[str]]:
        """Return the kept lists of paths by part, else draw and keep them.

        Args:
            file: name, which holds everything that the draw depends on except the listing.
            parts: names of the lists.
            fits: returns True for kept lists that may be used.
            draw: makes new ones.
            announce: warn if other images of the same folder were drawn from before.
        """
        if self._folder is None:
            return draw()
        path = self._folder / file
        if path.exists():
            kept = self._read(path, parts)
            if kept is not None and fits(kept):
                return kept
            _LOG.warning("split cache: %s is damaged; drawn again", path)
        elif announce:
            self._announce_change(file)
        drawn = draw()
        content = {"version": VERSION, "dataset": self._name, "listing": self._digest, "place": self._place}
        content |= {"photos": len(self._listing)} | {part: list(drawn[part]) for part in parts}
        try:
            write_atomic(path, json.dumps(content, indent=0).encode())
        except DataError as error:
            _LOG.warning("split cache: %s; going on without it", error)
        return drawn

    def _read(self, path: Path, parts: Sequence[str]) -> dict[str, list[str]] | None:
        content = _load(path)
        if content.get("version") != VERSION or content.get("listing") != self._digest:
            return None
        lists = {part: content.get(part) for part in parts}
        if all(isinstance(x, list) and all(isinstance(path, str) for path in x) for x in lists.values()):
            return {part: list(x) for part, x in lists.items() if x is not None}
        return None

    def _announce_change(self, file: str) -> None:
        """Warn if another listing of the same folder was drawn from before."""
        assert self._folder is not None  # noqa: S101 - the only caller has checked
        for path in sorted(self._folder.parent.glob(f"{self._folder.name[:-17]}-*/{file}")):
            content = _load(path)
            if content.get("place") == self._place:
                _LOG.warning(
                    "%s: its photos are not those of an earlier run (%s then, %s now), so a new draw is made; the "
                    "earlier one stays in %s",
                    self._name, content.get("photos"), len(self._listing), path,
                )  # fmt: skip
                return


def draw_shots(dataset: ImageDataset, shots: int, seed: int, cache_dir: Path | None = None) -> Shots:
    """Return the `few_shot` draw that is kept for exactly these images; else draw and keep it."""
    photos = dataset.train, dataset.val
    labels = [[photo.label for photo in part] for part in photos]
    drawn = few_shot(labels[0], labels[1], shots, seed)
    if cache_dir is None or shots < 1:
        return drawn
    paths = [[dataset.relative(photo) for photo in part] for part in photos]
    listing = [
        f"{path}\0{split}\0{photo.label}\0{dataset.class_names[photo.label]}"
        for split, part, named in zip(("train", "val"), photos, paths, strict=True)
        for photo, path in zip(part, named, strict=True)
    ]
    places = [{path: row for row, path in enumerate(part)} for part in paths]
    if any(len(place) != len(part) for place, part in zip(places, paths, strict=True)):
        return drawn  # the path of an image that is listed twice does not identify its row

    def rows(parts: Mapping[str, Sequence[str]]) -> list[list[int]]:
        return [[place[path] for path in parts[split]] for place, split in zip(places, ("train", "val"), strict=True)]

    def fits(parts: Mapping[str, Sequence[str]]) -> bool:
        if any(
            path not in place for split, place in zip(("train", "val"), places, strict=True) for path in parts[split]
        ):
            return False
        chosen, expected = rows(parts), (drawn.train, drawn.val)
        return all(
            len(set(part)) == len(part) and Counter(of[row] for row in part) == Counter(of[row] for row in now)
            for part, now, of in zip(chosen, expected, labels, strict=True)
        )

    cache = SplitCache(cache_dir, dataset.name, dataset.root, listing)
    kept = cache.get(
        f"shot_{shots}-seed_{seed}.json",
        ("train", "val"),
        fits,
        lambda: {"train": [paths[0][row] for row in drawn.train], "val": [paths[1][row] for row in drawn.val]},
        announce=dataset.split_origin != "ours",  # else the split has announced it
    )
    train, val = rows(kept)
    return Shots(tuple(train), tuple(val))


def digest(text: str) -> str:
    """Return SHA-256 in hex; file names need not be valid text."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
